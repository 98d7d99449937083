"""From a network whose values are rounded to codes here and there to one that computes with the
codes.

A layer between roundings, its weights codes as well, multiplies bytes; what follows it, residual,
activation and rounding, becomes part of it. What passes elements on passes bytes on; an elementwise
pass reads and writes whatever it is given. Everything else reads floats, which an elementwise pass
makes of the codes. The meaning stays the same, up to the rounding of float32 before a tie.
"""

from dataclasses import dataclass

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.codes import (
    INTEGER_LAYERS,
    averages_codes,
    passes_codes,
    rounds,
    weight_codes,
    weight_values,
    why_float,
)
from subpc.passes.dataflow import Dataflow, rewrite, shape_of
from subpc.passes.move_quantize import common_grid, quantization_on
from subpc.schedules.isa import VectorIsa
from subpc.schedules.quantization import CODES, Quantization

_FLOAT = "float32"


def has_codes(module: tvm.IRModule) -> bool:
    """Whether any value or weight of a network is given as codes."""
    graph = Dataflow(module["main"])
    return any(True for _ in graph.calls(ops.FAKE_QUANTIZE, ops.DEQUANTIZE))


def to_integers(module: tvm.IRModule, isa: VectorIsa) -> tvm.IRModule:
    """fake_quantize and dequantize disappear into operators of codes. Run after move_quantize."""
    return rewrite(module, lambda graph: _Integers(graph, isa).run())


@dataclass(frozen=True, kw_only=True)
class _Codes:
    """The same values as a tensor of codes."""

    var: relax.Var
    quantization: Quantization

    @property
    def attribute(self) -> list[float]:
        return _attribute(self.quantization)


class _Integers:
    """codes: for values that were rounded, the tensor of their codes; the values themselves become
    what an elementwise pass makes of those, and disappear where nobody reads them. reasons: why
    layers compute floats, "" where they do not."""

    def __init__(self, graph: Dataflow, isa: VectorIsa) -> None:
        self.graph, self.isa = graph, isa
        self.users = graph.users()
        self.codes: dict[relax.Var, _Codes] = {}
        self.reasons: dict[relax.Var, str] = {}

    def run(self) -> None:
        for var in self.graph.live():
            call = self.graph.call(var, *ops.ALL, ops.FAKE_QUANTIZE)
            if call is None:
                continue
            if call.op.name == ops.FAKE_QUANTIZE:
                self._round(var, call)
            elif not self._rounded_at_once(var, call):
                self._compute(var, call)
        for var, stored in list(self.graph.calls(ops.DEQUANTIZE)):
            # What is left belongs to layers of floats.
            codes, scales = (arg.value.numpy() for arg in self.graph.operands(stored))
            self.graph.replace(var, relax.const(weight_values(codes, scales)))

    def _rounded_at_once(self, var: relax.Var, call: relax.Call) -> bool:
        """Whether a value is read by a rounding alone that its operator can do itself."""
        readers = self.users.get(var, [])
        if len(readers) != 1 or readers[0] is None:
            return False
        if self.graph.call(readers[0], ops.FAKE_QUANTIZE) is None:
            return False
        if call.op.name in INTEGER_LAYERS:
            return not self._why_float(var, call)
        return rounds(call) and self._reads(call)

    def _reads(self, call: relax.Call) -> bool:
        """Whether a mean has codes to read; elementwise passes round floats as well."""
        return not averages_codes(call) or self._of(call.args[0]) is not None

    def _why_float(self, var: relax.Var, call: relax.Call) -> str:
        if var not in self.reasons:
            x = self._of(call.args[0])
            quantization = x.quantization if x is not None else None
            self.reasons[var] = why_float(self.graph, call, quantization, self.isa)
        return self.reasons[var]

    def _of(self, value: relax.Expr) -> _Codes | None:
        value = self.graph.resolve(value)
        return self.codes.get(value) if isinstance(value, relax.Var) else None

    def _round(self, var: relax.Var, call: relax.Call) -> None:
        """The codes of a rounded value: written by the operator that computes it, else by a pass of
        its own."""
        quantization, source = quantization_on(call), self.graph.resolve(call.args[0])
        before = None
        if isinstance(source, relax.Var) and source not in self.codes:
            before = self.graph.call(source, *ops.ALL)
        if before is None or not self._rounded_at_once(source, before):
            before = _alone(source)
        made = self._with_codes(before, dtype=CODES, quantization=_attribute(quantization))
        self._bind(var, made, quantization)

    def _compute(self, var: relax.Var, call: relax.Call) -> None:
        """An operator whose result nobody rounds, or not at once."""
        if passes_codes(call):
            found = {var: codes.quantization for var, codes in self.codes.items()}
            quantization = common_grid(self.graph, call, found)
            if quantization is not None:
                args = [codes.var for arg in call.args if (codes := self._of(arg)) is not None]
                attribute = _attribute(quantization)
                self._bind(
                    var, ops.with_attributes(call, list(args), quantization=attribute), quantization
                )
        elif call.op.name in INTEGER_LAYERS:
            why = self._why_float(var, call)
            if why:
                self.graph.rebind(
                    var, ops.with_attributes(call, **{"why_float": why, **ops.attributes(call)})
                )
            else:
                self.graph.rebind(var, self._with_codes(call, dtype=_FLOAT))
        elif rounds(call) and any(self._of(arg) is not None for arg in call.args):
            self.graph.rebind(var, self._with_codes(call, dtype=_FLOAT))

    def _with_codes(self, call: relax.Call, **result: object) -> relax.Call:
        """The call with codes for the operands that have them; result: what it writes."""
        found = [self._of(arg) for arg in call.args]
        args = [codes.var if codes else arg for arg, codes in zip(call.args, found, strict=True)]
        attributes = [codes.attribute if codes else [] for codes in found]
        if call.op.name == ops.ELEMENTWISE:
            return ops.with_attributes(call, args, quantizations=attributes, **result)
        if call.op.name not in INTEGER_LAYERS:
            return ops.with_attributes(call, args, x_quantization=attributes[0], **result)
        stored = weight_codes(self.graph, call)
        assert stored is not None
        args[1] = relax.const(stored[0])
        residual = attributes[3] if len(args) == 4 else []
        return ops.with_attributes(
            call,
            args,
            x_quantization=attributes[0],
            weight_scales=[float(scale) for scale in stored[1]],
            residual_quantization=residual,
            **result,
        )

    def _bind(self, var: relax.Var, call: relax.Call, quantization: Quantization) -> None:
        """Let `call` make the codes of `var`, and `var` be what they stand for."""
        codes = relax.Var(str(var.name), relax.TensorType(shape_of(var), CODES))
        self.graph.exprs[codes] = call
        self.codes[var] = _Codes(var=codes, quantization=quantization)
        attribute = _attribute(quantization)
        values = ops.with_attributes(_alone(codes), dtype=_FLOAT, quantizations=[attribute])
        self.graph.rebind(var, values)


def _alone(x: relax.Expr) -> relax.Call:
    """A pass that changes nothing but how numbers are stored; reports name it after the layer
    before it, as they do for all that the model has no name for."""
    return ops.elementwise([x], ["arg 0"], ["tensor"], shape_of(x), "lv")


def _attribute(quantization: Quantization) -> list[float]:
    """How calls spell it."""
    return [quantization.scale, quantization.zero_point]
