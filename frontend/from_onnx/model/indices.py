"""Constant indices and paddings that reach outside of what they index: refused, where engines stop
while they run.

ONNX's reference has no bound either: it computes for hours with an index that is large enough.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from subpc.frontend.from_onnx.graph import attributes_of

_ALONG_AN_AXIS = ("Gather", "GatherElements", "ScatterElements", "Scatter")
_OF_SEVERAL_AXES = ("GatherND", "ScatterND")


def check_indices(
    node: onnx.NodeProto, shape: tuple[int, ...] | None, constants: Mapping[str, np.ndarray]
) -> None:
    """ValueError where a constant index of the node is outside of its first input, which has
    `shape`."""
    if (
        node.op_type not in (*_ALONG_AN_AXIS, *_OF_SEVERAL_AXES)
        or shape is None
        or len(node.input) < 2
        or node.input[1] not in constants
    ):
        return
    for axis, taken in _taken(node, constants[node.input[1]], len(shape)):
        outside = taken[(taken < -shape[axis]) | (taken >= shape[axis])]
        if outside.size:
            raise ValueError(
                f"index {outside[0]} along axis {axis}, which has {shape[axis]} elements"
            )


def _taken(node: onnx.NodeProto, index: np.ndarray, rank: int) -> Iterator[tuple[int, np.ndarray]]:
    """Axes, and the indices along them."""
    attributes = attributes_of(node)
    if node.op_type in _ALONG_AN_AXIS:
        yield int(attributes.get("axis", 0)) % max(rank, 1), index.reshape(-1)
        return
    for column in range(index.shape[-1]):
        yield int(attributes.get("batch_dims", 0)) + column, index[..., column].reshape(-1)


def check_padding(
    node: onnx.NodeProto, before: tuple[int, ...] | None, after: tuple[int, ...] | None
) -> None:
    """ValueError where padding by less than nothing cuts off all that there is; shapes before and
    after it."""
    if node.op_type == "Pad" and before and after and min(before) > 0 and min(after) < 1:
        raise ValueError(f"it cuts {list(before)} down to {list(after)}")
