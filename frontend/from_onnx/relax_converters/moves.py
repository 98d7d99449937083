"""ONNX operators that move values: between channels and pixels, out of columns, in and out of
sequences."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from onnx import helper
from tvm import relax

from subpc.frontend.from_onnx.graph import NodeError
from subpc.frontend.messages import printable
from subpc.frontend.overlap import overlap_added

Converter = Callable[[list[Any], dict[str, Any], int], Any]


_PADDING = ("constant", "reflect", "edge", "wrap")


def space_to_depth(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Mode CRD, channels before positions; TVM knows the other."""
    if attrs.get("mode", b"DCR") not in (b"CRD", "CRD"):
        return None
    size = int(attrs["blocksize"])
    batch, channels, height, width = (int(n) for n in inputs[0].ty.shape)
    split = relax.op.reshape(
        inputs[0], [batch, channels, height // size, size, width // size, size]
    )
    moved = relax.op.permute_dims(split, [0, 1, 3, 5, 2, 4])
    return relax.op.reshape(moved, [batch, channels * size * size, height // size, width // size])


def columns_to_image(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Col2Im over two axes."""
    size, block = (_numbers(value) for value in inputs[1:3])
    if len(size) != 2:
        raise NodeError(f"an image of {len(size)} axes; 2 are accepted")
    pads = list(attrs.get("pads") or [0] * 4)
    shape = [int(n) for n in inputs[0].ty.shape]
    return overlap_added(
        inputs[0],
        shape,
        size,
        block,
        list(attrs.get("strides") or [1, 1]),
        pads,
        list(attrs.get("dilations") or [1, 1]),
    )


def eye_like(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Ones along a diagonal: a constant, for only the input's shape matters."""
    rows, columns = (int(n) for n in inputs[0].ty.shape)
    dtype = (
        helper.tensor_dtype_to_np_dtype(attrs["dtype"])
        if "dtype" in attrs
        else np.dtype(str(inputs[0].ty.dtype))
    )
    return relax.const(np.eye(rows, columns, int(attrs.get("k", 0)), dtype), str(dtype))


def inserted(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """A sequence with one element more, at the end or before another one: -1 is before the last."""
    fields = list(inputs[0])
    fields.insert(
        _numbers(inputs[2])[0] if len(inputs) > 2 and inputs[2] is not None else len(fields),
        inputs[1],
    )
    return relax.Tuple(fields)


def split_to_sequence(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """A sequence of slices: of one size, of given sizes, or of single elements, whose axis may
    go."""
    x, axis = inputs[0], int(attrs.get("axis", 0)) % int(inputs[0].ty.ndim)
    extent, given = int(x.ty.shape[axis]), len(inputs) > 1 and inputs[1] is not None
    sizes = _numbers(inputs[1]) if given else [1]
    if not given or not inputs[1].ty.shape:
        sizes = [min(sizes[0], extent - start) for start in range(0, extent, sizes[0])]
    ends = np.cumsum(sizes).tolist()
    parts = [
        relax.op.strided_slice(x, [axis], [end - size], [end])
        for size, end in zip(sizes, ends, strict=True)
    ]
    return relax.Tuple(
        parts
        if given or attrs.get("keepdims", 1)
        else [relax.op.squeeze(part, [axis]) for part in parts]
    )


def padded(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Pad with values of the tensor, axis after axis, however far it reaches; None where a fill is
    padded with, which TVM does."""
    given = attrs.get("mode", "constant")
    mode: Any = given.decode(errors="replace") if isinstance(given, bytes) else given
    if mode not in _PADDING:
        raise NodeError(f"it has mode={printable(mode)}; accepted: {', '.join(_PADDING)}")
    x = inputs[0]
    shape = [int(n) for n in x.ty.shape]
    pads = _numbers(inputs[1]) if opset >= 11 else list(attrs["pads"])
    axes = (
        _numbers(inputs[3])
        if len(inputs) > 3 and inputs[3] is not None
        else list(range(len(shape)))
    )
    for i, axis in enumerate(axes):
        before, after, extent = pads[i], pads[i + len(axes)], shape[axis]
        if -min(before, 0) - min(after, 0) > extent:
            raise NodeError(
                f"it cuts {-min(before, 0)} and {-min(after, 0)} off an axis of {extent}"
            )
        if mode == "constant" or (before, after) == (0, 0):
            continue
        if min(before, after) < 0 < max(before, after):
            raise NodeError(f"it cuts an axis at one end and pads it with mode={mode} at the other")
        kept = np.arange(extent)[max(-before, 0) : extent + min(after, 0)]
        places = np.pad(kept, (max(before, 0), max(after, 0)), mode=mode)
        x = relax.op.take(x, relax.const(places, "int64"), axis=axis % len(shape))
    return None if mode == "constant" else x


def sliced(inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Slice as it was before opset 10, with attributes."""
    if opset >= 10:
        return None
    starts, ends = (list(attrs[name]) for name in ("starts", "ends"))
    return relax.op.strided_slice(
        inputs[0], list(attrs.get("axes", range(len(starts)))), starts, ends
    )


def _numbers(value: Any) -> list[int]:
    if not isinstance(value, tvm.ir.GenericConst):
        raise NodeError("a size or a position depends on the input")
    return [int(n) for n in np.asarray(value.value.numpy()).reshape(-1)]


CONVERTERS: dict[str, Converter] = {
    "Col2Im": columns_to_image,
    "EyeLike": eye_like,
    "Pad": padded,
    "SequenceInsert": inserted,
    "Slice": sliced,
    "SpaceToDepth": space_to_depth,
    "SplitToSequence": split_to_sequence,
}
