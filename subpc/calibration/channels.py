"""Which channels of a graph's tensors can only be scaled together, and which not at all."""

from collections.abc import Sequence

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, shape_of

_LAYERS = (ops.CONV2D, ops.LINEAR)
# f(s x) = s f(x) for s > 0.
_SCALABLE = ("none", "relu", "leaky_relu")


class Channels:
    """Every channel (axis 1) of every float tensor has a number; those with one number have one
    factor.

    of: the numbers (C,) of a tensor's channels; fixed: which numbers have the factor 1, those that
    an activation cuts off at a bound among them; weight: the largest share that a dense layer's
    weights of this channel have of the largest of their row, 0 where no dense layer reads it;
    layers: convolutions and products whose weights can be scaled.
    """

    def __init__(self, graph: Dataflow) -> None:
        self.graph = graph
        self._leader: list[int] = []
        self._fixed: list[int] = []
        self._of: dict[relax.Var, np.ndarray] = {}
        for var in graph.inputs:
            self._fix(self._new(var))
        for var in graph.live():
            self._visit(var, graph.exprs[var])
        for result in graph.outputs():
            self._fix(self._of.get(result))
        self._settle()

    def read(self, layer: relax.Var) -> np.ndarray:
        """The numbers of the channels that a layer reads."""
        numbers: np.ndarray = self.of[self.graph.resolve(self.graph.exprs[layer].args[0])]
        return numbers

    def _settle(self) -> None:
        leaders = np.array([self._first(i) for i in range(len(self._leader))], int)
        self.count = len(leaders)
        self.of = {var: leaders[numbers] for var, numbers in self._of.items()}
        self.fixed = np.zeros(self.count, bool)
        self.fixed[leaders[self._fixed]] = True
        self.weight = np.zeros(self.count)
        self.layers = [var for var, call in self.graph.calls(*_LAYERS) if self._scalable(call)]
        for layer in self.layers:
            self._weigh(layer)

    def _weigh(self, layer: relax.Var) -> None:
        call = self.graph.exprs[layer]
        rows, groups = float_weight(self.graph, call), ops.attributes(call).get("groups", 1)
        if rows is None or (groups > 1 and rows.shape[1] == 1):
            return
        size = np.abs(rows).reshape(*rows.shape[:2], -1).max(2)
        shares = size / np.maximum(size.max(1, keepdims=True), 1e-30)
        largest = shares.reshape(groups, -1, rows.shape[1]).max(1).reshape(-1)
        np.maximum.at(self.weight, self.read(layer), largest)

    def _new(self, var: relax.Var) -> np.ndarray | None:
        if not isinstance(var.ty, relax.TensorType) or dtype_of(var) != "float32":
            return None
        shape = shape_of(var)
        start, channels = len(self._leader), shape[1] if len(shape) > 1 else 1
        self._leader += range(start, start + channels)
        self._of[var] = np.arange(start, start + channels)
        return self._of[var]

    def _fix(self, numbers: np.ndarray | None) -> None:
        if numbers is not None:
            self._fixed += numbers.tolist()

    def _first(self, number: int) -> int:
        while self._leader[number] != number:
            self._leader[number] = number = self._leader[self._leader[number]]
        return number

    def _tie(self, left: np.ndarray, right: np.ndarray) -> None:
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            self._leader[self._first(a)] = self._first(b)

    def _visit(self, var: relax.Var, expr: relax.Expr) -> None:
        call = self.graph.call(var, *ops.ALL, ops.DEQUANTIZE)
        operands = [
            self._of.get(v) if isinstance(v, relax.Var) else None for v in self.graph.operands(expr)
        ]
        if call is None or not self._understood(var, call, operands):
            for numbers in (*operands, self._new(var)):
                self._fix(numbers)

    def _understood(
        self, var: relax.Var, call: relax.Call, operands: Sequence[np.ndarray | None]
    ) -> bool:
        """Give the result its numbers; False where that is not known how."""
        name, x = call.op.name, operands[0]
        if name == ops.DEQUANTIZE:
            return True
        if x is None:
            return False
        if name in _LAYERS:
            return self._layer(var, call, operands)
        if name in (ops.POOL2D, ops.GLOBAL_POOL):
            self._of[var] = x
            return True
        if name == ops.CONCAT and all(numbers is not None for numbers in operands):
            self._of[var] = np.concatenate([n for n in operands if n is not None])
            return True
        if name == ops.CHANNELS:
            a = ops.attributes(call)
            self._of[var] = x[a["first"] : a["first"] + a["out_shape"][1]]
            return True
        if name == ops.VIEW:
            return self._view(var, shape_of(self.graph.resolve(call.args[0])), x)
        if name == ops.ELEMENTWISE:
            return self._elementwise(var, call, operands)
        return False

    def _layer(
        self, var: relax.Var, call: relax.Call, operands: Sequence[np.ndarray | None]
    ) -> bool:
        if not self._scalable(call):
            return False
        out = self._new(var)
        assert out is not None
        if float_weight(self.graph, call) is None:
            self._fix(operands[0])
        if len(operands) == 4 and operands[3] is not None:
            self._tie(out, operands[3])
        if ops.activation_of(ops.attributes(call)["activation"]).kind not in _SCALABLE:
            self._fix(out)
        return True

    def _scalable(self, call: relax.Call) -> bool:
        """Whether a layer's output channels can be scaled by its weights: those of codes by their
        scales."""
        x = self.graph.resolve(call.args[0])
        return len(shape_of(x)) == (4 if call.op.name == ops.CONV2D else 2) and (
            float_weight(self.graph, call) is not None
        )

    def _view(self, var: relax.Var, shape: tuple[int, ...], x: np.ndarray) -> bool:
        """Whole channels that become as many features each."""
        out = shape_of(var)
        if len(shape) < 2 or len(out) < 2 or out[0] != shape[0] or any(n != 1 for n in out[2:]):
            return False
        self._of[var] = np.repeat(x, out[1] // shape[1])
        return True

    def _elementwise(
        self, var: relax.Var, call: relax.Call, operands: Sequence[np.ndarray | None]
    ) -> bool:
        a = ops.attributes(call)
        words = [w for w in a["program"] if not w.startswith("arg ") and w != "add"]
        last = a["program"][-1].removeprefix("act ") if words[:1] == [a["program"][-1]] else "none"
        # Nothing but sums, and an activation after them.
        sums = not words or (len(words) == 1 and words[0] == f"act {last}")
        if not sums or set(a["kinds"]) != {"tensor"}:
            return False
        known = [numbers for numbers in operands if numbers is not None]
        if len(known) < len(operands):
            return False
        for numbers in known[1:]:
            self._tie(known[0], numbers)
        self._of[var] = known[0]
        if ops.activation_of(last).kind not in _SCALABLE:
            self._fix(known[0])
        return True


def float_weight(graph: Dataflow, call: relax.Call) -> np.ndarray | None:
    """A layer's weights (out, ...), None where they are no constant floats."""
    weight = constant_of(graph.resolve(call.args[1]))
    if weight is None or weight.dtype != "float32":
        return None
    return weight.T if ops.attributes(call).get("transposed") else weight


def scaled_weight(graph: Dataflow, layer: relax.Var, read: np.ndarray, written: np.ndarray) -> None:
    """Divide a layer's weights by the factors (in,) of what it reads, and multiply weights and bias
    by those (out,) of what it writes."""
    if (read == 1).all() and (written == 1).all():
        return
    call = graph.exprs[layer]
    a, rows = ops.attributes(call), float_weight(graph, call)
    bias = constant_of(graph.resolve(call.args[2]))
    assert rows is not None and bias is not None
    groups = a.get("groups", 1)
    each = read.reshape(groups, 1, -1).repeat(len(rows) // groups, 1).reshape(len(rows), -1)
    ends = (1,) * (rows.ndim - 2)
    rows = rows * (written[:, None] / each).reshape(*each.shape, *ends)
    weight = rows.T if a.get("transposed") else rows
    args = [
        call.args[0],
        relax.const(np.ascontiguousarray(weight, "float32")),
        relax.const((bias * written).astype("float32")),
        *call.args[3:],
    ]
    graph.rebind(layer, ops.with_attributes(call, args))
