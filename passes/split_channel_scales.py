"""Activations quantized with a scale for each channel, as NNCF does in front of depthwise
convolutions: rounded with one scale, and multiplied before and after.

    scales * codes = scales / scale * (scale * codes), codes = rounded(x * scale / scales / scale)

The first factor goes into the weights of the layer before, the second into those of the depthwise
convolution behind, so that codes stay codes. Also what a rounding does anyway: a relu or clip in
front of it whose bounds lie outside of what its codes reach.
"""

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, rewrite, shape_of

_QUANTIZE, _DEQUANTIZE = "relax.quantize", "relax.dequantize"
_CODES = {"uint8": (0, 255), "int8": (-128, 127)}


def split_channel_scales(module: tvm.IRModule) -> tvm.IRModule:
    """Pairs of quantize and dequantize with equal zero points and a scale a channel get one scale
    and two products; clips that a quantize repeats go."""
    return rewrite(module, lambda graph: _Splitter(graph).run())


class _Splitter:
    def __init__(self, graph: Dataflow) -> None:
        self.graph, self.users = graph, graph.users()

    def run(self) -> None:
        for var, call in list(self.graph.calls(_DEQUANTIZE)):
            self._split(var, call)
        for var, call in list(self.graph.calls(_QUANTIZE)):
            x = self._unclipped(var, call)
            if not x.same_as(call.args[0]):
                self.graph.rebind(
                    var, relax.Call(call.op, [x, *call.args[1:]], call.attrs, call.ty_args)
                )

    def _split(self, var: relax.Var, call: relax.Call) -> None:
        codes = self.graph.resolve(call.args[0])
        first = self.graph.call(codes, _QUANTIZE)
        if first is None or dtype_of(codes) not in _CODES or len(shape_of(var)) != 4:
            return
        found = self._scales(call)
        if found is None or not _equal(found, self._scales(first)):
            return
        scales, zero_point = found
        scale = np.float32(scales.max())
        x = self._unclipped(codes, first)
        before = self._product(x, scale / scales)
        one = [relax.const(scale), relax.const(zero_point, dtype_of(codes))]
        rounded = self._bind(
            relax.op.quantize(before, *one, axis=1, out_dtype=dtype_of(codes)),
            shape_of(var),
            dtype_of(codes),
        )
        values = self._bind(relax.op.dequantize(rounded, *one, axis=1), shape_of(var))
        if not self._into_weights(var, values, scales / scale):
            self.graph.rebind(var, relax.op.multiply(values, _channels(scales / scale)))

    def _scales(self, call: relax.Call) -> tuple[np.ndarray, int] | None:
        """(scales, zero point) of a call with more than one scale, all for channels."""
        scales, zeros = (constant_of(self.graph.resolve(arg)) for arg in call.args[1:3])
        if scales is None or zeros is None or scales.size == 1 or int(call.attrs.axis) != 1:
            return None
        positive = np.isfinite(scales).all() and (scales > 0).all()
        return (scales, int(zeros.flat[0])) if positive and len(set(zeros.flat)) == 1 else None

    def _unclipped(self, var: relax.Var, call: relax.Call) -> relax.Expr:
        """What a quantize may read: not the result of a relu or clip, but what that reads, where
        nobody else reads its result and the quantize clips as much itself."""
        x = self.graph.resolve(call.args[0])
        clip = self.graph.call(x, "relax.nn.relu", "relax.clip")
        scales, zeros = (constant_of(self.graph.resolve(arg)) for arg in call.args[1:3])
        if clip is None or scales is None or zeros is None or self.users.get(x) != [var]:
            return call.args[0]
        low, high = 0.0, np.inf
        if clip.op.name == "relax.clip":
            low, high = (float(bound.value) for bound in clip.args[1:3])
        least, most = _CODES.get(dtype_of(var), (-np.inf, np.inf))
        lowest, highest = (np.rint(bound / scales) + zeros for bound in (low, high))
        inside = (lowest <= least).all() and (highest >= most).all()
        return self.graph.resolve(clip.args[0]) if inside else call.args[0]

    def _into_weights(self, var: relax.Var, values: relax.Var, factors: np.ndarray) -> bool:
        """Whether all readers are depthwise convolutions, whose weights then have the factors."""
        readers = self.users.get(var, [])
        calls = [None if user is None else self.graph.call(user, ops.CONV2D) for user in readers]
        weights = [None if c is None else constant_of(self.graph.resolve(c.args[1])) for c in calls]
        if any(w is None or w.shape[1] != 1 or len(w) % len(factors) for w in weights):
            return False
        for user, conv, weight in zip(readers, calls, weights, strict=True):
            assert user is not None and conv is not None and weight is not None
            own = np.repeat(factors, len(weight) // len(factors)).reshape(-1, 1, 1, 1)
            scaled = relax.const((weight.astype("float64") * own).astype("float32"))
            self.graph.rebind(user, ops.with_attributes(conv, [values, scaled, *conv.args[2:]]))
        return True

    def _product(self, x: relax.Expr, factors: np.ndarray) -> relax.Var:
        return self._bind(relax.op.multiply(x, _channels(factors)), shape_of(x))

    def _bind(self, call: relax.Call, shape: tuple[int, ...], dtype: str = "float32") -> relax.Var:
        var = relax.Var("lv", relax.TensorType(shape, dtype))
        self.graph.exprs[var] = call
        return var


def _equal(a: tuple[np.ndarray, int], b: tuple[np.ndarray, int] | None) -> bool:
    return b is not None and np.array_equal(a[0], b[0]) and a[1] == b[1]


def _channels(factors: np.ndarray) -> relax.Expr:
    return relax.const(factors.astype("float32").reshape(1, -1, 1, 1))
