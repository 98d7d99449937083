"""What converters to a plain graph ask of the reader of a model, and what is converted alike
whatever file it came in."""

import itertools
import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from subpc.frontend.plain_graph.builder import GraphBuilder
from subpc.frontend.weight_codes import WeightCodes

# How the model names a value: a text in ONNX, a node (or a number) in an exported program.
Place = TypeVar("Place", contravariant=True)

# The relation between exchanged operands.
_SWAPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


@dataclass(frozen=True)
class Weight:
    """A tensor that the file holds, or that follows from such tensors alone; its name there, and
    the whole numbers that it is made of, if it is."""

    name: str
    value: torch.Tensor
    codes: WeightCodes | None = None


class GraphReader(Protocol[Place]):
    """A model that is gone through node by node, its results collected in `builder`."""

    builder: GraphBuilder

    def value(self, place: Place, /) -> int:
        """The value's number in `builder`; a weight is placed as one."""

    def weight(self, place: Place, /) -> Weight | None:
        """The weight at a place; None where the value is computed from the input."""

    def number(self, place: Place, /) -> float | None:
        """The number at a place, which widens no other operand; None where it is a tensor or
        computed from the input."""

    def shape(self, place: Place, /) -> tuple[int, ...]:
        """The shape of a value."""


def required_weight(reader: GraphReader[Place], place: Place) -> Weight:
    """The weight at a place; ValueError where it is computed from the input."""
    found = reader.weight(place)
    if found is None:
        raise ValueError("its weight depends on the input")
    return found


def arithmetic(
    reader: GraphReader[Place], op: str, left: Place, right: Place, *, reverse: bool = False
) -> int:
    """`left op right`, or `right op left` with `reverse`, where one of them may be a number."""
    if (number := reader.number(right)) is not None:
        return reader.builder.add(
            f"{op}_number", reader.value(left), number=number, reverse=reverse
        )
    if (number := reader.number(left)) is not None:
        return reader.builder.add(
            f"{op}_number", reader.value(right), number=number, reverse=not reverse
        )
    first, second = (right, left) if reverse else (left, right)
    return reader.builder.add(op, reader.value(first), reader.value(second))


def clip(builder: GraphBuilder, x: int, low: float | None, high: float | None) -> int:
    """A value between bounds, by the name that activations have."""
    if low == 0 and high in (6, None, math.inf):
        return builder.add("relu6" if high == 6 else "relu", x)
    bounds = [None if value is None or math.isinf(value) else float(value) for value in (low, high)]
    return builder.add("clip", x, low=bounds[0], high=bounds[1])


def reshape(builder: GraphBuilder, x: int, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """The first extent is the batch's, and follows the input's where it stays."""
    if before == after:
        return x
    if len(after) == 2 and len(before) > 2 and before[0] == after[0]:
        return builder.add("flatten", x, start=1, end=-1)
    shape = list(after)
    if before and after and before[0] == after[0]:
        shape[0] = 0
    return builder.add("reshape", x, shape=shape)


def expand(builder: GraphBuilder, x: int, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """Axes that keep their extent follow the input's."""
    own = (1,) * (len(after) - len(before)) + before
    kept = [
        old == new and i >= len(after) - len(before)
        for i, (old, new) in enumerate(zip(own, after, strict=True))
    ]
    return builder.add(
        "expand", x, shape=[-1 if keep else new for keep, new in zip(kept, after, strict=True)]
    )


def split(builder: GraphBuilder, x: int, dim: int, sizes: list[int]) -> list[int]:
    """Parts of these sizes, one after the other."""
    ends = list(itertools.accumulate(sizes))
    return [
        builder.add("slice", x, dim=dim, start=end - size, end=end, step=1)
        for size, end in zip(sizes, ends, strict=True)
    ]


def batch_norm(
    reader: GraphReader[Place], name: str, tensors: dict[str, torch.Tensor], x: Place, eps: float
) -> int:
    """A batch norm over (n, c), (n, c, l) or (n, c, h, w): height and width are added where there
    are none."""
    rank, value = len(reader.shape(x)), reader.value(x)
    if not 2 <= rank <= 4:
        raise ValueError(f"a batch norm over {rank} dimensions")
    added = list(range(rank, 4))
    for dim in added:
        value = reader.builder.add("unsqueeze", value, dim=dim)
    result = reader.builder.layer(name, "batch_norm", tensors, value, eps=eps)
    return reader.builder.add("squeeze", result, dims=added) if added else result


def compare(reader: GraphReader[Place], relation: str, left: Place, right: Place) -> int:
    """`left relation right`, one of which may be a number."""
    for value, number, word in (
        (left, reader.number(right), relation),
        (right, reader.number(left), _SWAPPED[relation]),
    ):
        if number is not None:
            return reader.builder.add(
                "compare_number", reader.value(value), relation=word, number=number
            )
    return reader.builder.add("compare", reader.value(left), reader.value(right), relation=relation)
