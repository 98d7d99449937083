"""What slides a window, spelled out: padding by name, rounding up and output shapes become padding
in numbers.

Every reader of ONNX files gets models that have been through here, so that all of them compute the
same. Where ONNX's own reference and ONNX Runtime differ, the operators' definition decides: both
have cases in which they leave out a dilation or pad with less than nothing.
"""

import math
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from subpc.errors import ModelFileError, UnsupportedModelError
from subpc.frontend.from_onnx.graph import NodeError, attributes_of, node_name, value_shapes

_POOLS = ("MaxPool", "AveragePool", "LpPool")


@dataclass(frozen=True)
class Axis:
    """A window along one axis: `span` is what it covers with its dilation."""

    extent: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def span(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    def positions(self, ceil: bool) -> int:
        """How many windows there are; rounded up, the last one has to start before the padding
        behind the image."""
        room = self.extent + self.before + self.after - self.span
        count = (-(-room // self.stride) if ceil else room // self.stride) + 1
        return (
            count - 1 if ceil and (count - 1) * self.stride >= self.extent + self.before else count
        )

    def overhang(self, ceil: bool) -> int:
        """How far the last window reaches beyond the padding."""
        return max(
            (self.positions(ceil) - 1) * self.stride
            + self.span
            - self.extent
            - self.before
            - self.after,
            0,
        )

    def empty_window(self) -> bool:
        """Whether some window reads nothing but padding."""
        last = (self.positions(False) - 1) * self.stride - self.before
        early = range(-self.before, min(last + 1, 0), self.stride)
        return last >= self.extent or any(not self._reads(start) for start in early)

    def _reads(self, start: int) -> bool:
        """Whether a window that starts before the image has a tap inside."""
        first = -(start // self.dilation)
        return first < self.kernel and start + first * self.dilation < self.extent


def explicit_windows(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, whose shapes are known, with the padding of every window in numbers; the model
    itself is changed."""
    shapes = value_shapes(model.graph) | {
        tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer
    }
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", *_POOLS) and node.input[0] in shapes:
            _spell_out(node, shapes)
    return model


def _spell_out(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> None:
    a, extents = attributes_of(node), shapes[node.input[0]][2:]
    kernel = a.get("kernel_shape") or list(shapes.get(node.input[1], ()))[2:]
    axes = _axes(node, a, extents, kernel)
    weight = shapes.get(node.input[1], ())[2:] if node.op_type not in _POOLS else ()
    if weight and list(weight) != list(kernel):
        raise ModelFileError(
            f"Node {node_name(node)} ({node.op_type}) has a window of {list(kernel)}, but weights"
            f" of {list(weight)}."
        )
    changed = (
        _transposed(node, a, axes) if node.op_type == "ConvTranspose" else _padded(node, a, axes)
    )
    if node.op_type in _POOLS:
        _check_reads(node, _axes(node, {**a, **changed, "auto_pad": "NOTSET"}, extents, kernel))
    kept = [
        attribute
        for attribute in node.attribute
        if attribute.name not in (*changed, "auto_pad", "output_shape")
    ]
    del node.attribute[:]
    node.attribute.extend(
        [*kept, *(helper.make_attribute(name, value) for name, value in changed.items())]
    )


def _check_reads(node: onnx.NodeProto, axes: list[Axis]) -> None:
    if any(axis.empty_window() for axis in axes):
        raise ModelFileError(
            f"Node {node_name(node)} ({node.op_type}) has windows that lie in their padding"
            " entirely, and so no result there.\nIts pads have to be smaller than its window."
        )


def _axes(
    node: onnx.NodeProto, a: dict[str, Any], extents: tuple[int, ...], kernel: list[int]
) -> list[Axis]:
    explicit = a if a.get("auto_pad", "NOTSET") == "NOTSET" else {**a, "pads": None}
    try:
        return axes_of({**explicit, "kernel_shape": kernel}, extents)
    except ValueError as error:
        raise ModelFileError(f"Node {node_name(node)} ({node.op_type}) has {error}.") from error


def axes_of(a: dict[str, Any], extents: tuple[int, ...]) -> list[Axis]:
    """The window with attributes `a`, which pad in numbers, along each axis; ValueError where they
    are not for as many."""
    rank = len(extents)
    kernel, pads = list(a["kernel_shape"]), list(a.get("pads") or [0] * (2 * rank))
    strides, dilations = (
        list(a.get("strides") or [1] * rank),
        list(a.get("dilations") or [1] * rank),
    )
    if {len(kernel), len(strides), len(dilations)} != {rank} or len(pads) != 2 * rank:
        raise NodeError(f"attributes for other than the {rank} axes of its input")
    return [
        Axis(extents[i], kernel[i], strides[i], dilations[i], pads[i], pads[i + rank])
        for i in range(rank)
    ]


def _padded(node: onnx.NodeProto, a: dict[str, Any], axes: list[Axis]) -> dict[str, Any]:
    """Convolutions and poolings: pads, and ceil_mode and count_include_pad where they say more than
    pads can."""
    mode = a.get("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        return _pads([_same(axis, mode) for axis in axes])
    pads = [(axis.before, axis.after) for axis in axes]
    if node.op_type == "Conv" or not a.get("ceil_mode"):
        return _pads(pads)
    more = [axis.overhang(True) for axis in axes]
    if not any(more):
        return {**_pads(pads), "ceil_mode": 0}
    if (
        node.op_type == "AveragePool"
        and a.get("count_include_pad")
        and any(before or after for before, after in pads)
    ):
        return _pads(
            pads
        )  # what hangs over is in no mean, the padding is: only rounding up says both
    wider = {
        **_pads([(before, after + n) for (before, after), n in zip(pads, more, strict=True)]),
        "ceil_mode": 0,
    }
    return {**wider, "count_include_pad": 0} if node.op_type == "AveragePool" else wider


def _same(axis: Axis, mode: str) -> tuple[int, int]:
    """As many windows as strides fit; a stride that is wider than the window needs no padding, and
    gets none."""
    total = max(
        (math.ceil(axis.extent / axis.stride) - 1) * axis.stride + axis.span - axis.extent, 0
    )
    return (
        (total // 2, total - total // 2)
        if mode == "SAME_UPPER"
        else (total - total // 2, total // 2)
    )


def _pads(pads: list[tuple[int, int]]) -> dict[str, Any]:
    return {"pads": [before for before, _ in pads] + [after for _, after in pads]}


def _transposed(node: onnx.NodeProto, a: dict[str, Any], axes: list[Axis]) -> dict[str, Any]:
    """A transposed convolution's padding is what is cut off from the full result, as its output's
    shape asks for."""
    mode, rank = a.get("auto_pad", "NOTSET"), len(axes)
    more = a.get("output_padding") or [0] * rank
    wanted = (a.get("output_shape") or [])[-rank:]
    if not wanted and not mode.startswith("SAME"):
        return _pads([(axis.before, axis.after) for axis in axes])
    wanted = wanted or [axis.extent * axis.stride for axis in axes]
    if len(more) != rank or len(wanted) != rank:
        raise ModelFileError(
            f"Node {node_name(node)} ({node.op_type}) has an output shape for other than {rank}"
            " axes."
        )
    totals = [
        axis.stride * (axis.extent - 1) + n + axis.span - size
        for axis, n, size in zip(axes, more, wanted, strict=True)
    ]
    lacking = [n + max(-total, 0) for n, total in zip(more, totals, strict=True)]
    if any(n >= max(axis.stride, axis.dilation) for n, axis in zip(lacking, axes, strict=True)):
        raise UnsupportedModelError(
            f"Node {node_name(node)} (ConvTranspose) wants an output of {wanted}, which is larger"
            " than its windows reach.\nPad its result instead, with a Pad node."
        )
    small = [(max(total, 0) // 2, max(total, 0) - max(total, 0) // 2) for total in totals]
    pads = small if mode == "SAME_UPPER" else [(large, less) for less, large in small]
    return {**_pads(pads), "output_padding": lacking}
