"""Give every convolution and fully connected layer the name its weights had in the user's model, and our operator."""

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, rewrite, shape_of


def label_layers(module: tvm.IRModule, param_names: dict[str, str]) -> tvm.IRModule:
    """conv2d and matmul with constant weights become named subpc.conv2d and subpc.linear.

    param_names: Relax parameter name -> name in the user's model. Run before the parameters are bound: binding loses their names.
    """
    return rewrite(module, lambda graph: _Labeller(graph, param_names).run())


class _Labeller:
    def __init__(self, graph: Dataflow, param_names: dict[str, str]) -> None:
        self.graph, self.names = graph, param_names
        self.taken: dict[str, int] = {}

    def run(self) -> None:
        for var, call in self.graph.calls("relax.nn.conv2d", "relax.matmul", "relax.nn.conv1d"):
            if call.op.name == "relax.nn.conv2d":
                self._conv2d(var, call)
            elif call.op.name == "relax.matmul":
                self._linear(var, call)

    def _conv2d(self, var: relax.Var, call: relax.Call) -> None:
        attrs, weight = call.attrs, self.graph.resolve(call.args[1])
        if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW" or dtype_of(var) != "float32":
            return
        if not self._is_parameter(weight):
            return
        out = shape_of(var)
        padding = [int(p) for p in attrs.padding]
        self.graph.rebind(
            var,
            ops.make(
                ops.CONV2D,
                [call.args[0], weight, _zeros(out[1])],
                name=self._name(weight, var),
                strides=[int(s) for s in attrs.strides],
                padding=padding if len(padding) == 4 else (padding * 2 if len(padding) == 2 else padding * 4),
                dilation=[int(d) for d in attrs.dilation],
                groups=int(attrs.groups),
                out_shape=list(out),
                activation="none",
            ),
        )

    def _linear(self, var: relax.Var, call: relax.Call) -> None:
        x, transposed = call.args
        permute = self.graph.call(transposed, "relax.permute_dims")
        weight = self.graph.resolve(permute.args[0]) if permute is not None else self.graph.resolve(transposed)
        if not self._is_parameter(weight) or len(shape_of(weight)) != 2 or dtype_of(var) != "float32" or len(shape_of(x)) < 2:
            return
        out = shape_of(var)
        name = self._name(weight, var)
        self.graph.rebind(
            var,
            ops.make(
                ops.LINEAR,
                [x, weight, _zeros(out[-1])],
                name=name,
                out_shape=list(out),
                transposed=0 if permute is not None else 1,
                activation="none",
            ),
        )

    def _is_parameter(self, value: relax.Expr) -> bool:
        return constant_of(value) is not None or (isinstance(value, relax.Var) and value.name in self.names)

    def _name(self, weight: relax.Expr, var: relax.Var) -> str:
        """`layer1.0.conv1` for the weight `layer1.0.conv1.weight`; a weight used again gets `#2` and so on."""
        full = self.names.get(weight.name, weight.name) if isinstance(weight, relax.Var) else var.name
        name = full.removesuffix(".weight")
        self.taken[name] = self.taken.get(name, 0) + 1
        return name if self.taken[name] == 1 else f"{name}#{self.taken[name]}"


def _zeros(length: int) -> tvm.ir.Constant:
    return relax.const(np.zeros(length, "float32"))
