"""Bring roundings to the layers whose results they round: the same network, and what lies between
a layer and its rounding moves bytes."""

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.codes import passes_codes
from subpc.passes.dataflow import Dataflow, rewrite, shape_of
from subpc.schedules.quantization import Quantization

_Key = tuple[relax.Expr, Quantization]


def move_quantize(module: tvm.IRModule) -> tvm.IRModule:
    """fake_quantize(max_pool(x)) becomes max_pool(fake_quantize(x)), and so for all that passes
    codes on; a second rounding to the same codes is none."""
    return rewrite(module, lambda graph: _Mover(graph).run())


def quantization_on(call: relax.Call) -> Quantization:
    """What a subpc.fake_quantize rounds to."""
    found = ops.quantization_of(ops.attributes(call)["quantization"])
    assert found is not None
    return found


def common_grid(
    graph: Dataflow, call: relax.Call, grids: dict[relax.Var, Quantization]
) -> Quantization | None:
    """What all operands of an operator that passes codes on have been rounded to, None if they
    differ or are floats."""
    found = {
        grids.get(operand) if isinstance(operand, relax.Var) else None
        for operand in graph.operands(call)
    }
    return found.pop() if len(found) == 1 else None


class _Mover:
    """grids: the values that have been rounded, and to what; rounded: who rounds a value."""

    def __init__(self, graph: Dataflow) -> None:
        self.graph = graph
        self.grids: dict[relax.Var, Quantization] = {}
        self.rounded: dict[_Key, relax.Var] = {}
        self.users = graph.users()

    def run(self) -> None:
        for var in self.graph.live():
            call = self.graph.call(var, *ops.ALL, ops.FAKE_QUANTIZE)
            if call is None or self.graph.resolve(var) != var:
                continue
            if call.op.name == ops.FAKE_QUANTIZE:
                self._settle(var, call)
            elif passes_codes(call):
                grid = common_grid(self.graph, call, self.grids)
                if grid is not None:
                    self.grids[var] = grid

    def _settle(self, var: relax.Var, call: relax.Call) -> None:
        """A rounding stays where it is, is left out, or goes to what the operator before it
        reads, and on from there."""
        waiting = [(var, call)]
        while waiting:
            var, call = waiting.pop()
            x, grid = self.graph.resolve(call.args[0]), quantization_on(call)
            if isinstance(x, relax.Var) and self.grids.get(x) == grid:
                self._same(var, x)
            elif (x, grid) in self.rounded:
                self._same(var, self.rounded[x, grid])
            elif isinstance(x, relax.Var) and self._movable(var, x):
                waiting += self._move(var, call, x)
            else:
                self.rounded[x, grid] = var
                self.grids[var] = grid

    def _same(self, var: relax.Var, value: relax.Var) -> None:
        """Let whoever reads `var` read `value`, which is equal."""
        self.graph.replace(var, value)
        readers = self.users.setdefault(value, [])
        self.users[value] = [r for r in readers if r != var] + self.users.pop(var, [])

    def _movable(self, var: relax.Var, x: relax.Var) -> bool:
        """Whether nobody but the rounding reads x, and x passes on what was not rounded yet."""
        before = self.graph.call(x, *ops.ALL)
        if before is None or self.users.get(x) != [var] or not passes_codes(before):
            return False
        whole = before.op.name != ops.CHANNELS or self._alike(before, var)
        return whole and common_grid(self.graph, before, self.grids) is None

    def _alike(self, part: relax.Call, var: relax.Var) -> bool:
        """Whether all that is read of a tensor are channels of it, rounded as these are: else more
        would be rounded than anybody reads."""
        wanted = quantization_on(self._call(var))
        return all(
            reader is not None
            and (self._rounds_to(reader, wanted) or self._rounded_part(reader, wanted))
            for reader in self.users.get(self.graph.resolve(part.args[0]), [])
        )

    def _rounded_part(self, var: relax.Var, wanted: Quantization) -> bool:
        readers = self.users.get(var, [])
        return (
            self.graph.call(var, ops.CHANNELS) is not None
            and len(readers) == 1
            and readers[0] is not None
            and self._rounds_to(readers[0], wanted)
        )

    def _rounds_to(self, var: relax.Var, wanted: Quantization) -> bool:
        call = self.graph.call(var, ops.FAKE_QUANTIZE)
        return call is not None and quantization_on(call) == wanted

    def _call(self, var: relax.Var) -> relax.Call:
        call = self.graph.call(var, *ops.ALL, ops.FAKE_QUANTIZE)
        assert call is not None
        return call

    def _move(
        self, var: relax.Var, call: relax.Call, x: relax.Var
    ) -> list[tuple[relax.Var, relax.Call]]:
        """Round the operands of x in the place of x; returns those roundings."""
        before, made = self._call(x), []
        for operand in self.graph.operands(before):
            shape = shape_of(operand)
            rounding = relax.Var(str(var.name), relax.TensorType(shape, "float32"))
            moved = ops.with_attributes(call, [operand], out_shape=list(shape))
            self.graph.exprs[rounding] = moved
            self.users[rounding] = [x]
            if isinstance(operand, relax.Var):
                others = [r for r in self.users.get(operand, []) if r != x]
                self.users[operand] = [*others, rounding]
            made.append((rounding, moved))
        self.graph.rebind(x, ops.with_attributes(before, [rounding for rounding, _ in made]))
        self.grids[x] = quantization_on(call)
        self._same(var, x)
        return made
