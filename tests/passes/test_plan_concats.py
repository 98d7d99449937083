"""Which tensors are written straight into a concatenation."""

from collections.abc import Callable

import torch
from torch import nn

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow
from subpc.passes.plan_layout import Slice, plan_concats
from tests.passes.evaluate import stages


class Body(nn.Module):
    """Four convolutions of 4, 8, 12 and 16 filters, and a forward pass over them that each test
    writes itself."""

    def __init__(self, forward: Callable[["Body", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.c4, self.c8, self.c12, self.c16 = (nn.Conv2d(3, n, 1) for n in (4, 8, 12, 16))
        self.body = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def plan(
    forward: Callable[[Body, torch.Tensor], torch.Tensor], batch: int = 1
) -> tuple[dict[str, tuple[int, int]], int]:
    """(layer -> (which concatenation, counted from the last one; first channel) for every
    convolution and concatenation that has a place in another, number of concatenations)."""
    _, module = stages(Body(forward), (batch, 3, 6, 5), until="fuse_elementwise")
    graph = Dataflow(module["main"])
    concats = [var for var, _ in graph.calls(ops.CONCAT)]
    number = {var: len(concats) - 1 - i for i, var in enumerate(concats)}
    found: dict[str, tuple[int, int]] = {}
    for var, place in plan_concats(graph).items():
        assert isinstance(place, Slice)
        call = graph.call(var, ops.CONV2D)
        name = (
            ops.attributes(call)["name"]
            if call is not None
            else f"concat {number[var]}"
            if var in number
            else "other"
        )
        found[name] = (number[place.root], place.channel)
    return found, len(concats)


def test_every_operand_has_its_channels() -> None:
    found, _ = plan(lambda n, x: torch.cat([n.c4(x), n.c8(x), n.c12(x)], 1))
    assert found == {"c4": (0, 0), "c8": (0, 4), "c12": (0, 12)}


def test_dense_blocks_grow_in_one_buffer() -> None:
    """DenseNet: each concatenation is the beginning of the next."""

    def forward(n: Body, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d = n.c4(x), n.c8(x), n.c12(x), n.c16(x)
        return (
            torch.cat([a, b], 1).sum(1)
            + torch.cat([a, b, c], 1).sum(1)
            + torch.cat([a, b, c, d], 1).sum(1)
        )

    found, concats = plan(forward)
    assert concats == 3
    assert found == {
        "c4": (0, 0),
        "c8": (0, 4),
        "c12": (0, 12),
        "c16": (0, 24),
        "concat 1": (0, 0),
        "concat 2": (0, 0),
    }


def test_a_concatenation_inside_another() -> None:
    found, _ = plan(lambda n, x: torch.cat([n.c4(x), torch.cat([n.c8(x), n.c12(x)], 1)], 1))
    assert found == {"c4": (0, 0), "concat 1": (0, 4), "c8": (0, 4), "c12": (0, 12)}


def test_a_tensor_cannot_be_in_two_places() -> None:
    found, _ = plan(lambda n, x: torch.cat([y := n.c4(x), y], 1))
    assert found == {}
    # In another order, the second concatenation has to copy.
    found, _ = plan(
        lambda n, x: torch.cat([y := n.c4(x), z := n.c8(x)], 1).sum(1) + torch.cat([z, y], 1).sum(1)
    )
    assert sorted(found) == ["c4", "c8"]
    assert len({root for root, _ in found.values()}) == 1


def test_inputs_stay_where_they_are() -> None:
    assert plan(lambda n, x: torch.cat([x, n.c4(x)], 1))[0] == {}


def test_only_batch_one_has_contiguous_channels() -> None:
    assert plan(lambda n, x: torch.cat([n.c4(x), n.c8(x)], 1), batch=2)[0] == {}
