"""Give every convolution and fully connected layer the name its weights had in the user's model,
and our operator."""

import math
import re

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, rewrite, shape_of
from subpc.passes.transposed_convs import gather_transposed

CONVOLUTIONS = {
    "relax.nn.conv1d": "1-D convolution",
    "relax.nn.conv2d": "convolution",
    "relax.nn.conv3d": "3-D convolution",
    "relax.nn.conv1d_transpose": "1-D transposed convolution",
    "relax.nn.conv2d_transpose": "transposed convolution",
    "relax.nn.conv3d_transpose": "3-D transposed convolution",
}
# Those that become an operator of ours, and the layout of their weights.
_OURS = {
    "relax.nn.conv2d": (ops.CONV2D, "OIHW"),
    "relax.nn.conv2d_transpose": (ops.CONV2D_TRANSPOSE, "IOHW"),
}
# Operators that FoldConstant never computes: what is made of them stays to be computed at each
# call.
_NEVER_CONSTANT = ("relax.call_tir", "relax.call_tir_with_grad")
_TENSOR_OF_LAYER = re.compile(r"\.weight[^.]*")


def label_layers(module: tvm.IRModule, param_names: dict[str, str]) -> tvm.IRModule:
    """Layers whose weights depend on no input become named subpc.conv2d, subpc.conv2d_transpose and
    subpc.linear.

    The others become subpc.other_layer.

    param_names: Relax parameter name -> name in the user's model. Run before the parameters are
    bound: binding loses their names.
    """
    return rewrite(module, lambda graph: _Labeller(graph, param_names).run())


def settle_layers(module: tvm.IRModule) -> tvm.IRModule:
    """Where a layer's weights did not become a constant after all, the operator that it was;
    transposed weights as convolutions have them.

    Run after constants are folded.
    """
    return rewrite(module, _settle)


class _Labeller:
    def __init__(self, graph: Dataflow, param_names: dict[str, str]) -> None:
        self.graph, self.names = graph, param_names
        self.taken: dict[str, int] = {}
        # What each variable is computed from, where that is parameters and constants alone.
        self._sources: dict[relax.Var, set[relax.Var]] = {}
        for var, expr in graph.exprs.items():
            self._note_sources(var, expr)

    def run(self) -> None:
        for var, call in self.graph.calls(*CONVOLUTIONS, "relax.matmul"):
            if call.op.name == "relax.matmul":
                self._linear(var, call)
            else:
                self._convolution(var, call)

    def _convolution(self, var: relax.Var, call: relax.Call) -> None:
        reason = self._reason(var, call)
        if reason:
            self._other(var, call, reason)
            return
        attrs, out = call.attrs, shape_of(var)
        padding = [int(p) for p in attrs.padding]
        transposed = (
            {"output_padding": [int(p) for p in attrs.output_padding]}
            if "transpose" in call.op.name
            else {}
        )
        self.graph.rebind(
            var,
            ops.make(
                _OURS[call.op.name][0],
                [call.args[0], self.graph.resolve(call.args[1]), _zeros(out[1])],
                name=self._name(call.args[1], var),
                strides=[int(s) for s in attrs.strides],
                padding=padding
                if len(padding) == 4
                else (padding * 2 if len(padding) == 2 else padding * 4),
                dilation=[int(d) for d in attrs.dilation],
                groups=int(attrs.groups),
                out_shape=list(out),
                activation="none",
                **transposed,
            ),
        )

    def _reason(self, var: relax.Var, call: relax.Call) -> str:
        """Why no kernel of ours takes a convolution; empty where one does."""
        kind = CONVOLUTIONS[call.op.name]
        if self._parameters(call.args[1]) is None:
            return f"weights depend on the input: this {kind} has others at each call"
        if call.op.name not in _OURS:
            return f"{kind}: kernels are for 2-D convolutions"
        if dtype_of(var) != "float32":
            return f"{dtype_of(var)}: kernels take float32"
        layouts = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
        return (
            ""
            if layouts == ("NCHW", _OURS[call.op.name][1])
            else f"layout {layouts[0]}: kernels take NCHW"
        )

    def _linear(self, var: relax.Var, call: relax.Call) -> None:
        x, transposed = call.args
        permute = self.graph.call(transposed, "relax.permute_dims")
        weight = (
            self.graph.resolve(permute.args[0])
            if permute is not None
            else self.graph.resolve(transposed)
        )
        if self._parameters(weight) is None:
            return
        if len(shape_of(weight)) != 2 or dtype_of(var) != "float32" or len(shape_of(x)) < 2:
            if self._parameters(
                weight
            ):  # numbers of an importer's own, such as those of a resize, are no layer
                self._other(
                    var,
                    call,
                    "product with weights: kernels take one float32 matrix and rows of inputs",
                )
            return
        out = shape_of(var)
        self.graph.rebind(
            var,
            ops.make(
                ops.LINEAR,
                [x, weight, _zeros(out[-1])],
                name=self._name(weight, var),
                out_shape=list(out),
                transposed=0 if permute is not None else 1,
                activation="none",
            ),
        )

    def _other(self, var: relax.Var, call: relax.Call, reason: str) -> None:
        self.graph.rebind(
            var, other_layer(call, self._name(call.args[1], var), reason, shape_of(var))
        )

    def _note_sources(self, var: relax.Var, expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and getattr(expr.op, "name", "") in _NEVER_CONSTANT:
            return
        sources = [self._parameters(operand) for operand in self.graph.operands(expr)]
        if None not in sources:
            self._sources[var] = set().union(*(found for found in sources if found))

    def _parameters(self, value: relax.Expr) -> set[relax.Var] | None:
        """The parameters that a value is computed from; None if it depends on an input."""
        value = self.graph.resolve(value)
        if not isinstance(value, relax.Var):
            return set()
        return {value} if value.name in self.names else self._sources.get(value)

    def _nearest_parameters(self, value: relax.Expr) -> set[relax.Var]:
        """The parameters met on the way back from a value that depends on an input, not those of
        layers further up."""
        found: set[relax.Var] = set()
        waiting, seen = [self.graph.resolve(value)], set()
        while waiting:
            here = waiting.pop()
            if not isinstance(here, relax.Var) or here in seen:
                continue
            seen.add(here)
            known = self._parameters(here)
            if known is not None:
                found |= known
            elif here in self.graph.exprs:
                layer = self.graph.call(here, ops.CONV2D, ops.LINEAR, ops.OTHER_LAYER)
                waiting += (
                    [self.graph.resolve(layer.args[1])]
                    if layer is not None
                    else self.graph.operands(self.graph.exprs[here])
                )
        return found

    def _name(self, weight: relax.Expr, var: relax.Var) -> str:
        """`layer1.0.conv1` for the weight `layer1.0.conv1.weight`; a weight used again gets `#2`
        and so on."""
        weight = self.graph.resolve(weight)
        known = self._parameters(weight)
        sources = self._nearest_parameters(weight) if known is None else known
        source = max(
            sorted(sources, key=lambda v: str(v.name)),
            key=lambda v: math.prod(shape_of(v)),
            default=var,
        )
        name = _TENSOR_OF_LAYER.sub("", self.names.get(source.name, source.name))
        self.taken[name] = self.taken.get(name, 0) + 1
        return name if self.taken[name] == 1 else f"{name}#{self.taken[name]}"


def other_layer(call: relax.Call, name: str, reason: str, shape: tuple[int, ...]) -> relax.Call:
    """A call that stays what it is, with the name of its layer and the reason why no kernel of ours
    takes it."""
    return ops.make(
        ops.OTHER_LAYER,
        list(call.args),
        name=name,
        reason=reason,
        operator=call.op.name,
        original=call.attrs,
        out_shape=list(shape),
    )


def _settle(graph: Dataflow) -> None:
    for var, call in graph.calls(ops.CONV2D, ops.CONV2D_TRANSPOSE, ops.LINEAR):
        weight = constant_of(graph.resolve(call.args[1]))
        if weight is not None and call.op.name == ops.CONV2D_TRANSPOSE:
            gather_transposed(graph, var, call, weight)
        elif weight is None:
            a = ops.attributes(call)
            graph.rebind(
                var,
                other_layer(
                    _plain(graph, call),
                    a["name"],
                    "weights cannot be computed when compiling",
                    shape_of(var),
                ),
            )


def _plain(graph: Dataflow, call: relax.Call) -> relax.Call:
    """The Relax operator behind one of our calls that has neither bias nor activation yet."""
    a, (x, weight) = ops.attributes(call), call.args[:2]
    if call.op.name == ops.CONV2D:
        return relax.op.nn.conv2d(x, weight, a["strides"], a["padding"], a["dilation"], a["groups"])
    if call.op.name == ops.CONV2D_TRANSPOSE:
        return relax.op.nn.conv2d_transpose(
            x, weight, a["strides"], a["padding"], a["output_padding"], a["dilation"], a["groups"]
        )
    if a["transposed"]:
        return relax.op.matmul(x, weight)
    var = relax.Var("transposed", relax.TensorType(shape_of(weight)[::-1], dtype_of(weight)))
    graph.rebind(var, relax.op.permute_dims(weight))
    return relax.op.matmul(x, var)


def _zeros(length: int) -> tvm.ir.Constant:
    return relax.const(np.zeros(length, "float32"))
