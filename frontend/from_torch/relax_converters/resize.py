"""Converters for torch operators that interpolate between pixels. TVM's agree with PyTorch where
the output is a whole multiple of the input; the rest is a product with matrices."""

from typing import Any

import torch
from torch import fx
from torch.nn import functional
from tvm import relax

from subpc.frontend.from_torch.nodes import arguments
from subpc.frontend.from_torch.relax_converters.common import Converter, shape_of, theirs
from subpc.frontend.sampling import grid_sample

# Mode numbers of aten.grid_sampler_2d.
_METHODS = {0: "bilinear", 1: "nearest"}
_PADDINGS = ("zeros", "border", "reflection")


def _resize(mode: str) -> Converter:
    """Interpolation without antialiasing."""

    def convert(node: fx.Node, importer: Any) -> Any:
        a = arguments(node)
        x = importer.env[a["input"]]
        size, out = shape_of(x)[2:], [int(n) for n in node.meta["val"].shape[2:]]
        whole = all(o % i == 0 for o, i in zip(out, size, strict=True))
        if whole and (
            a.get("scale_factors") is None
            or all(s == o // i for s, o, i in zip(a["scale_factors"], out, size, strict=True))
        ):
            return theirs(node, importer)
        align = bool(a.get("align_corners"))
        for axis in (2, 3):
            scale = a["scale_factors"][axis - 2] if a.get("scale_factors") else None
            matrix = _interpolation(mode, size[axis - 2], out[axis - 2], scale, align)
            x = _along(importer, x, axis, matrix)
        return x

    return convert


def _resize_antialiased(node: fx.Node, importer: Any) -> Any:
    a = arguments(node)
    x = importer.env[a["self"]]
    out = [int(n) for n in node.meta["val"].shape[2:]]
    for axis in (2, 3):
        size, align = shape_of(x)[axis], bool(a["align_corners"])
        matrix = _interpolation("bilinear_aa", size, out[axis - 2], None, align)
        x = _along(importer, x, axis, matrix)
    return x


def _grid_sampler(node: fx.Node, importer: Any) -> Any:
    a, emit = arguments(node), importer.block_builder.emit
    method = _METHODS.get(a["interpolation_mode"])
    if method is None:
        raise ValueError("grid_sample is supported with mode='bilinear' and mode='nearest'")
    x, grid = importer.env[a["input"]], importer.env[a["grid"]]
    padding, align = _PADDINGS[a["padding_mode"]], bool(a["align_corners"])
    return emit(grid_sample(emit, x, grid, method=method, padding=padding, align=align))


def _interpolation(
    mode: str, size: int, out: int, scale: float | None, align: bool
) -> torch.Tensor:
    """(out, size): the weight of each input pixel in each output pixel along one axis, asked of
    PyTorch itself."""
    antialias, mode = mode.endswith("_aa"), mode.removesuffix("_aa")
    options = {} if mode == "nearest" else {"align_corners": align, "antialias": antialias}
    extent = {"size": (out, 2)} if scale is None else {"scale_factor": (scale, 1.0)}
    # One channel for each input pixel. Two equal columns: PyTorch's antialiasing reads planes of
    # one column with wrong strides.
    unit = torch.eye(size).reshape(1, size, size, 1).repeat(1, 1, 1, 2)
    result = functional.interpolate(unit, mode=mode, **extent, **options)
    return result[0, :, :, 0].T.contiguous()


def _along(importer: Any, x: Any, axis: int, matrix: torch.Tensor) -> Any:
    """The matrix applied to every column (axis 2) or row (axis 3) of the planes."""
    if axis == 2:
        return importer.block_builder.emit(relax.op.matmul(relax.const(matrix.numpy()), x))
    return importer.block_builder.emit(
        relax.op.matmul(x, relax.const(matrix.T.contiguous().numpy()))
    )


OURS: dict[str, Converter] = {
    "_upsample_bilinear2d_aa.default": _resize_antialiased,
    "grid_sampler_2d.default": _grid_sampler,
    "upsample_bicubic2d.vec": _resize("bicubic"),
    "upsample_bilinear2d.vec": _resize("bilinear"),
    "upsample_nearest2d.vec": _resize("nearest"),
}
