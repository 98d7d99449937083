"""Lowering of fused elementwise passes: on frames if the operands are framed, else on compact
arrays."""

import math

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of, dtype_of, shape_of
from subpc.passes.fold_scales import Pass, fold_scales
from subpc.passes.lower import Lowering, compact_layout
from subpc.passes.lower_planes import frame_of_elementwise
from subpc.passes.pack_blocks import pixel_mask
from subpc.passes.program import Location
from subpc.schedules.activation import Activation
from subpc.schedules.elementwise import Elementwise
from subpc.schedules.elementwise_program import Constant
from subpc.schedules.layout import Frame
from subpc.schedules.quantization import CODES, LARGEST_CODE

READ_FRAMES = tuple(name for name in ops.ALL if name not in (ops.LINEAR, ops.VIEW))


def lower_elementwise(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """A subpc.elementwise: one kernel, every operand in the layout of the result."""
    if any(call.same_as(clamp) for clamp in low.clamps.values()):
        return  # the convolution that reads it computes it
    attrs = ops.attributes(call)
    if CODES in map(dtype_of, (var, *call.args)):
        _lower_codes(low, var, call)
        return
    frame, plain = frame_of_elementwise(low, var, call), set(attrs["kinds"]) == {"tensor"}
    inputs = [
        _operand(low, arg, kind, frame) for arg, kind in zip(call.args, attrs["kinds"], strict=True)
    ]
    out = low.define(var, frame)
    layout = out.layout
    if frame is None and plain:
        layout = compact_layout((math.prod(shape_of(var)),), layout.dtype)
    kernel = Elementwise(
        layout=layout,
        inputs=tuple(attrs["kinds"]),
        program=tuple(_word(w) for w in attrs["program"]),
    )
    low.emit(
        attrs["name"], kernel, {f"x{i}": x for i, x in enumerate(inputs)} | {"y": out.location}
    )


def _lower_codes(low: Lowering, var: relax.Var, call: relax.Call) -> None:
    """One kernel from wherever the operands are to the frame that layers read: no copy besides."""
    attrs, kinds = ops.attributes(call), ops.attributes(call)["kinds"]
    homes = [
        low.home(arg) if kind == "tensor" else None
        for arg, kind in zip(call.args, kinds, strict=True)
    ]
    out = low.define(var, _frame_of_codes(low, var))
    layout = out.layout
    frames = tuple(home.layout.frame if home else None for home in homes)
    if len(shape_of(var)) != 4 and set(kinds) == {"tensor"}:
        layout = compact_layout((math.prod(shape_of(var)),), layout.dtype)
        frames = ()
    folded = fold_scales(_pass(low, call))
    kernel = Elementwise(
        layout=layout,
        inputs=tuple(kinds),
        program=folded.program,
        frames=frames,
        quantizations=folded.quantizations,
        quantization=folded.quantization,
    )
    places = {
        f"x{i}": low.weights.add(folded.constants[i])
        if i in folded.constants
        else (home.location if home else low.compact(arg))
        for i, (home, arg) in enumerate(zip(homes, call.args, strict=True))
    }
    if kernel.masked:
        mask = LARGEST_CODE * pixel_mask(out.layout.frame)
        places["mask"] = low.weights.add(mask.astype(CODES))
    low.emit(attrs["name"], kernel, places | {"y": out.location})


def _pass(low: Lowering, call: relax.Call) -> Pass:
    attrs = ops.attributes(call)
    known = [constant_of(low.graph.resolve(arg)) for arg in call.args]
    given = attrs.get("quantizations", ((),) * len(call.args))
    return Pass(
        program=tuple(_word(w) for w in attrs["program"]),
        quantizations=tuple(map(ops.quantization_of, given)),
        quantization=ops.quantization_of(attrs.get("quantization")),
        constants={i: value for i, value in enumerate(known) if value is not None and not given[i]},
    )


def _frame_of_codes(low: Lowering, var: relax.Var) -> Frame | None:
    """The frame of its size where somebody reads that, else compact: results of the network, and
    what the fallback or a fully connected layer reads."""
    readers = [reader for reader in low.readers.get(var, []) if reader is not None]
    framed = any(low.graph.call(reader, *READ_FRAMES) is not None for reader in readers)
    return low.frames.frame(var) if framed and len(shape_of(var)) == 4 else None


def _operand(low: Lowering, arg: relax.Expr, kind: str, frame: Frame | None) -> Location:
    if kind != "tensor" or frame is None:
        return low.compact(arg)
    return low.framed(arg, frame)


def _word(word: str) -> int | Constant | str | Activation:
    """One word of the program as the kernel spells it."""
    name, _, rest = word.partition(" ")
    if name == "arg":
        return int(rest)
    if name == "const":
        return Constant(float(rest))
    return ops.activation_of(rest) if name == "act" else word
