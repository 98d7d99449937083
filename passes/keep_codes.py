"""Weights that a file has as whole numbers, as subpc.dequantize in place of their values: what
integer layers take exactly as it is."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import tvm
from tvm import relax

from subpc.frontend.weight_codes import LARGEST, LOWEST, WeightCodes
from subpc.passes import ops
from subpc.passes.codes import passes_codes
from subpc.passes.dataflow import Dataflow, constant_of, rewrite, shape_of
from subpc.passes.offset_codes import bind_weight, bound, offset_codes, with_offsets

# Of a weight's size: what rounding leaves where a batch norm was folded into it.
_ROUNDING = 1e-6


def codes_of_layers(
    module: tvm.IRModule, codes: Mapping[str, WeightCodes]
) -> dict[str, WeightCodes]:
    """The codes of each layer whose weight is a parameter that has some, output channels first.

    codes: by the name of the parameter. Run after label_layers, before parameters are bound.
    """
    graph, found = Dataflow(module["main"]), {}
    for _, call in graph.calls(*ops.LAYERS):
        weight = graph.resolve(call.args[1])
        known = codes.get(str(weight.name)) if isinstance(weight, relax.Var) else None
        if known is not None:
            a = ops.attributes(call)
            if call.op.name == ops.CONV2D_TRANSPOSE:
                scales = np.tile(known.scales, a["groups"]) if known.axis == 1 else known.scales
                known = replace(known, scales=scales)
            elif a.get("transposed"):
                known = known.transposed((1, 0))
            found[str(a["name"])] = known
    return found


def keep_codes(module: tvm.IRModule, codes: Mapping[str, WeightCodes]) -> tvm.IRModule:
    """Layers whose weights are still these codes, each output channel by a factor, get
    subpc.dequantize as weight.

    codes: by layer. A factor is the file's scale, by that of a batch norm that was folded; it may
    be negative. Convolutions whose codes need nine bits become two where the file rounds what they
    read; other layers of such codes get codes of eight bits and offsets (offset_codes.py). Layers
    whose input channels were scaled, and others whose codes kernels do not take, keep their float
    weights.
    """
    return rewrite(module, lambda graph: _keep(graph, codes)) if codes else module


def _keep(graph: Dataflow, codes: Mapping[str, WeightCodes]) -> None:
    for var, call in graph.calls(ops.CONV2D, ops.LINEAR):
        a = ops.attributes(call)
        known, weight = codes.get(ops.layer_of(call)), constant_of(graph.resolve(call.args[1]))
        if known is None or weight is None:
            continue
        rows = weight.T if a.get("transposed") else weight
        if known.obstacle:
            if not _in_two(graph, var, call, known) and not _offset(graph, var, call, rows, known):
                why = f"weights: {known.obstacle}"
                graph.rebind(var, ops.with_attributes(call, why_float=why))
            continue
        found = _found(rows, known)
        if found is None:
            continue
        kept = bind_weight(graph, var, *found)
        changed = {"transposed": 0} if a.get("transposed") else {}
        graph.rebind(
            var, ops.with_attributes(call, [call.args[0], kept, *call.args[2:]], **changed)
        )


def _in_two(graph: Dataflow, var: relax.Var, call: relax.Call, known: WeightCodes) -> bool:
    """Whether a convolution of rounded values became two: one with the codes that fit eight bits,
    and one, mostly of zeros, with what the others have more, whose result the first one adds."""
    a, weight = ops.attributes(call), constant_of(graph.resolve(call.args[1]))
    assert weight is not None
    if call.op.name != ops.CONV2D or not _rounded(graph, call.args[0]):
        return False
    found = _same(weight, known.codes) if weight.shape == known.codes.shape else None
    if found is None:
        return False
    codes, scales = found
    fitting = np.clip(codes, LOWEST, LARGEST)
    rest = codes - fitting
    if rest.min() < LOWEST or rest.max() > LARGEST:
        return False
    x, _, bias, *residual = call.args
    whole = {
        "layer": ops.layer_of(call),
        "layer_shape": list(a.get("layer_shape", weight.shape)),
        "layer_strides": list(a.get("layer_strides", a["strides"])),
    }
    stored = [bind_weight(graph, var, part, scales) for part in (fitting, rest)]
    no_bias = relax.const(np.zeros(len(weight), "float32"))
    more = ops.with_attributes(
        call,
        [x, stored[1], no_bias, *residual],
        name=f"{a['name']}/1",
        activation="none",
        **whole,
    )
    added = bound(graph, var, more)
    args = [x, stored[0], bias, added]
    graph.rebind(var, ops.with_attributes(call, args, name=f"{a['name']}/0", **whole))
    return True


def _rounded(graph: Dataflow, value: relax.Expr) -> bool:
    """Whether a value is a rounding's result, or that moved."""
    while (call := graph.call(value, *ops.ALL, ops.FAKE_QUANTIZE)) is not None:
        if call.op.name == ops.FAKE_QUANTIZE:
            return True
        if not passes_codes(call):
            return False
        value = graph.operands(call)[0]
    return False


def _offset(
    graph: Dataflow, var: relax.Var, call: relax.Call, rows: np.ndarray, known: WeightCodes
) -> bool:
    """Whether a layer whose input becomes codes got weights of eight bits and offsets."""
    rounded = any(True for _ in graph.calls(ops.FAKE_QUANTIZE))
    if len(shape_of(var)) != rows.ndim or (rounded and not _rounded(graph, call.args[0])):
        return False
    found = _found(rows, known)
    apart = found and offset_codes(*found)
    if not apart:
        return False
    with_offsets(graph, var, call, apart)
    return True


def _found(rows: np.ndarray, known: WeightCodes) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights (out, ...) as codes of the file, with the factor of each output channel."""
    found = next(filter(None, (_same(rows, codes) for codes in _windows(rows, known))), None)
    return found or _moved(rows, known)


def _windows(weight: np.ndarray, known: WeightCodes) -> Iterator[np.ndarray]:
    """The codes that can be the weight's: all of them, or those of fewer taps."""
    if weight.ndim != known.codes.ndim or weight.shape[:2] != known.codes.shape[:2]:
        return
    if not np.isfinite(weight).all():  # codes times scales that overflow
        return
    spare = [have - n for have, n in zip(known.codes.shape[2:], weight.shape[2:], strict=True)]
    for first in product(*(range(n + 1) for n in spare)):
        taps = [slice(i, i + n) for i, n in zip(first, weight.shape[2:], strict=True)]
        window = (slice(None), slice(None), *taps)
        yield known.codes[window]


def _same(weight: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The codes as they are, zero where a channel is, and the factor of each output channel,
    float32 (out,); None where the weight is not these codes by factors."""
    rows, whole = (value.reshape(len(weight), -1).astype("float64") for value in (weight, codes))
    squares = (whole * whole).sum(1)
    scales = (rows * whole).sum(1) / np.where(squares == 0, 1, squares)
    if not _near(rows, whole * scales[:, None]):
        return None
    return codes * (_along(scales, weight.ndim) != 0), scales


def _moved(weight: np.ndarray, known: WeightCodes) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes of a part of a layer, or of turned taps: whole multiples of the file's scales; None
    where the weight is none."""
    scales = known.scales
    if len(weight) % len(scales) or not (np.isfinite(scales) & (scales > 0)).all():
        return None
    scales = np.repeat(scales, len(weight) // len(scales)).astype("float64")
    along = _along(scales, weight.ndim)
    whole = np.rint(weight / along)
    fits = known.codes.min() <= whole.min(initial=0) and whole.max(initial=0) <= known.codes.max()
    return (whole, scales) if fits and _near(weight, whole * along) else None


def _near(weight: np.ndarray, values: np.ndarray) -> bool:
    return bool((np.abs(weight - values) <= _ROUNDING * np.abs(weight)).all())


def _along(scales: np.ndarray, rank: int) -> np.ndarray:
    """Scales of output channels, to be multiplied by what has `rank` axes."""
    return scales.reshape(-1, *[1] * (rank - 1))
