"""ONNX poolings as operators of a GraphBuilder, and the padding of everything that slides a window.

Nodes have been through onnx_windows, so that padding is in numbers.
"""

from collections.abc import Callable
from typing import Any

import onnx
import torch
import torch.nn.functional as F

from subpc.frontend.from_onnx.plain_graph.reader import OnnxGraphReader

Converter = Callable[[OnnxGraphReader, onnx.NodeProto, dict[str, Any]], Any]


def window(
    reader: OnnxGraphReader,
    node: onnx.NodeProto,
    a: dict[str, Any],
    kernel: list[int],
    fill: float | None,
) -> tuple[int, dict[str, Any]]:
    """The input, padded where the padding differs from side to side, and stride, padding and
    dilation of a window."""
    stride, dilation = list(a.get("strides", [1, 1])), list(a.get("dilations", [1, 1]))
    if len(kernel) != 2:
        raise ValueError(f"{len(kernel)} spatial dimensions instead of 2")
    x, (top, left, bottom, right) = reader.value(node.input[0]), a.get("pads", [0, 0, 0, 0])
    wide = 2 * top > kernel[0] or 2 * left > kernel[1]  # more than PyTorch's poolings take
    if (top, left) != (bottom, right) or (wide and node.op_type != "Conv"):
        x = reader.builder.add(
            "pad", x, pads=[left, right, top, bottom], mode="constant", value=fill
        )
        top, left = 0, 0
    return x, {"stride": stride, "padding": [top, left], "dilation": dilation}


def _pool_options(
    reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any], fill: float | None
) -> tuple[int, dict[str, Any]]:
    kernel = list(a["kernel_shape"])
    x, options = window(reader, node, a, kernel, fill)
    return x, {**options, "kernel": kernel, "ceil": bool(a.get("ceil_mode", 0))}


def _max_pool(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x, options = _pool_options(reader, node, a, None)
    return _without_padding_windows(
        reader, node, a, int(reader.builder.add("max_pool2d", x, **options))
    )


def _avg_pool(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x, options = _pool_options(reader, node, a, 0.0)
    if options.pop("dilation") != [1, 1]:
        raise ValueError("dilation")
    counted = bool(a.get("count_include_pad", 0))
    padded = x != reader.value(node.input[0])
    result = reader.builder.add("avg_pool2d", x, **options, count_pad=counted, divisor=None)
    if padded and not counted:
        # The zeros of the padding are in the mean, which has to grow where there are some.
        grown = reader.builder.tensor(
            f"{node.output[0]}_shares", 1 / _inside(reader, node, options)
        )
        result = reader.builder.add("mul", result, grown)
    return _without_padding_windows(reader, node, a, result)


def _without_padding_windows(
    reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any], result: int
) -> int:
    """The result without windows that begin in padding: PyTorch leaves them out, but takes padding
    of one side only for pixels."""
    if not a.get("ceil_mode", 0) or not any(a.get("pads", [])):
        return result
    for axis, extent in enumerate(reader.shape(node.output[0])[2:], start=2):
        result = reader.builder.add("slice", result, dim=axis, start=0, end=extent, step=1)
    return result


def _inside(reader: OnnxGraphReader, node: onnx.NodeProto, options: dict[str, Any]) -> torch.Tensor:
    """(1, 1, h, w): which share of each window lies inside the image. The padding is the last node
    but one."""
    pads = reader.builder.nodes[-2].options["pads"]
    ones = F.pad(torch.ones(1, 1, *reader.shape(node.input[0])[2:]), pads)
    return F.avg_pool2d(
        ones, options["kernel"], options["stride"], options["padding"], options["ceil"]
    )


def _global(op: str) -> Converter:
    def convert(reader: OnnxGraphReader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        if len(reader.shape(node.input[0])) != 4:
            raise ValueError("other than 4 dimensions")
        return reader.builder.add(op, reader.value(node.input[0]), size=[1, 1])

    return convert


CONVERTERS: dict[str, Converter] = {
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _global("adaptive_avg_pool2d"),
    "GlobalMaxPool": _global("adaptive_max_pool2d"),
}
