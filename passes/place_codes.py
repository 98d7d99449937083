"""What the lowering of every layer on codes has in common: its scales, its residual, its
epilogue."""

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import dtype_of, shape_of
from subpc.passes.lower import Lowering, Place, framed_layout
from subpc.passes.pack_blocks import pixel_mask
from subpc.passes.plan_layout import padding_read
from subpc.schedules.layout import TensorLayout
from subpc.schedules.quantization import CODES, LARGEST_CODE, Quantization
from subpc.schedules.requantize import Levels, Requantize, levels_of


def layer_levels(call: relax.Call, codes: np.ndarray, bias: np.ndarray) -> Levels:
    """What brings the sums of a layer on codes to its result."""
    attrs, x = ops.attributes(call), x_quantization(call)
    weights = np.abs(codes.astype("int64")).reshape(len(codes), -1).sum(axis=1)
    return levels_of(
        multiplier=x.scale * np.asarray(attrs["weight_scales"], "float64"),
        bias=bias.astype("float64"),
        largest_sum=float(LARGEST_CODE * weights.max(initial=0)),
        activation=ops.activation_of(attrs["activation"]),
        residual=ops.quantization_of(attrs.get("residual_quantization")),
        result=ops.quantization_of(attrs.get("quantization")),
    )


def x_quantization(call: relax.Call) -> Quantization:
    """What the input of a layer on codes stands for."""
    quantization = ops.quantization_of(ops.attributes(call)["x_quantization"])
    assert quantization is not None
    return quantization


def padding_code(call: relax.Call) -> int:
    """What the halo of a convolution's input has to hold; 0, as all memory does, where no tap reads
    it."""
    return x_quantization(call).zero_point if padding_read(call) else 0


def operand_arrays(levels: Levels, filters: int) -> dict[str, np.ndarray]:
    """multiplier and bias of `filters` filters, zeros behind those of the layer, and levels."""
    room = filters - len(levels.bias)
    return {
        "multiplier": np.pad(levels.multiplier, (0, room)),
        "bias": np.pad(levels.bias, (0, room)),
        "levels": levels.levels,
    }


def result_mask(out: TensorLayout) -> np.ndarray:
    """The plane that keeps the border of a result empty: 255 and 0 for codes, 1 and 0 for
    floats."""
    mask = pixel_mask(out.frame)
    return (LARGEST_CODE * mask).astype(CODES) if out.dtype == CODES else mask


def place_residual(low: Lowering, call: relax.Call) -> Place | None:
    """Where the residual of a convolution lies, framed as its size and type are; None where there
    is none."""
    if len(call.args) < 4:
        return None
    height, width = shape_of(call.args[3])[2:]
    frame = low.frames.planar(height, width, dtype_of(call.args[3]))
    return Place(
        location=low.framed(call.args[3], frame),
        layout=framed_layout(low.graph.resolve(call.args[3]), frame),
    )


def requantize(
    call: relax.Call, var: relax.Var, levels: Levels, *, in_place: bool = False
) -> Requantize:
    """The epilogue of the layer `var`; in_place: its result goes over its residual."""
    residual = call.args[3] if len(call.args) == 4 else None
    return Requantize(
        residual=residual is not None,
        in_place=in_place,
        activation=ops.activation_of(ops.attributes(call)["activation"]),
        codes=dtype_of(var) == CODES,
        residual_codes=residual is not None and dtype_of(residual) == CODES,
        limited=levels.limited,
        shifted=levels.shifted,
    )
