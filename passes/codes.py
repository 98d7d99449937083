"""What each operator does with codes: which ones read bytes, which pass them on, which can round
their result to others. Passes ask here and nowhere else."""

import numpy as np
from tvm import relax

from subpc.errors import TargetError
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of
from subpc.schedules.isa import VectorIsa
from subpc.schedules.quantization import LARGEST_CODE, Quantization

# The largest sum that 32 bits hold.
LARGEST_SUM = 2**31 - 1
_PASSING = (ops.CONCAT, ops.VIEW, ops.CHANNELS)
_AVERAGING = (ops.POOL2D, ops.GLOBAL_POOL)
INTEGER_LAYERS = (ops.CONV2D, ops.LINEAR)


def passes_codes(call: relax.Call) -> bool:
    """Whether each element of the result is an element of an operand: then rounding before it is
    rounding after it, and it takes bytes as it takes floats."""
    if call.op.name == ops.POOL2D:
        return bool(ops.attributes(call)["kind"] == "max")
    if call.op.name == ops.INTERLEAVE:
        return len(call.args) == 1
    return call.op.name in _PASSING


def averages_codes(call: relax.Call) -> bool:
    """Whether the result is a mean of elements of one tensor of codes."""
    return call.op.name in _AVERAGING and not passes_codes(call)


def rounds(call: relax.Call) -> bool:
    """Whether an elementwise pass, or a mean of codes, can write any codes that are asked for;
    layers do so where `why_float` finds nothing."""
    return call.op.name == ops.ELEMENTWISE or averages_codes(call)


def weight_codes(graph: Dataflow, call: relax.Call) -> tuple[np.ndarray, np.ndarray] | None:
    """(codes (out, ...) int8, scales (out,) float32) of a layer's weights, None where they are
    floats."""
    stored = graph.call(call.args[1], ops.DEQUANTIZE)
    if stored is None:
        return None
    codes, scales = (constant_of(graph.resolve(arg)) for arg in stored.args)
    assert codes is not None and scales is not None
    return codes, scales


def stored_weight(graph: Dataflow, call: relax.Call) -> np.ndarray | None:
    """A layer's weights as the network holds them, floats or codes; None where they are
    computed."""
    found = weight_codes(graph, call)
    return found[0] if found is not None else constant_of(graph.resolve(call.args[1]))


def weight_values(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """What weights of codes (out, ...) stand for, float32."""
    factors = scales.astype("float32").reshape(-1, *[1] * (codes.ndim - 1))
    return np.asarray(codes.astype("float32") * factors)


def why_float(graph: Dataflow, call: relax.Call, x: Quantization | None, isa: VectorIsa) -> str:
    """Why a convolution or fully connected layer computes floats, "" where it multiplies bytes; x:
    what its input's codes are, None: it has none."""
    stored = weight_codes(graph, call)
    if x is None or stored is None:
        return f"{'input' if x is None else 'weights'}: not quantized"
    if not isa.dot:
        return f"target: {isa.name} has no instructions that multiply bytes"
    if ops.attributes(call).get("transposed"):
        return "weights: stored transposed"
    sums = np.abs(stored[0].astype("int16")).reshape(len(stored[0]), -1).sum(1, "int64")
    if LARGEST_CODE * int(sums.max(initial=0)) > LARGEST_SUM:
        return "sums: too large for 32 bits"
    return ""


def check_integers(isa: VectorIsa) -> None:
    """Raise a TargetError for CPUs without instructions that multiply bytes."""
    if not isa.dot:
        raise TargetError(
            f"int8 needs instructions that multiply bytes (AVX2, or AVX-512 with avx512bw), and the"
            f" target has {isa.name} alone.\nCompile for the CPU that will run it, such as --target"
            " 'llvm -mcpu=native' or 'llvm -mcpu=haswell', or with --precision float32."
        )
