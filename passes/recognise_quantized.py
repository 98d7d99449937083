"""Activations that a file quantizes: relax.quantize and relax.dequantize become
subpc.fake_quantize, float32 in and out.

Codes are compared, moved and pooled as the values that they stand for: what lies between the two,
such as a maximum pooling of codes, is computed of those values instead. Rounding what lies on the
grid already changes nothing, and is left out.
"""

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, dtype_of, rewrite, scalar_of, shape_of
from subpc.schedules.quantization import CODES, Quantization

_QUANTIZE, _DEQUANTIZE = "relax.quantize", "relax.dequantize"
# What is added to codes and zero points of each type to have bytes without a sign.
_SHIFT = {CODES: 0, "int8": 128}
_RESHAPE, _PERMUTE, _RESIZE = "relax.reshape", "relax.permute_dims", "relax.image.resize2d"
_PAD = "relax.nn.pad"
# Results are some of the operand's elements, whatever those are, or a number around them: by
# operators of ours that pass codes on, and by those of the fallback, which take floats.
_OURS = (
    *(_RESHAPE, "relax.flatten", "relax.nn.batch_flatten", "relax.squeeze"),
    *("relax.expand_dims", "relax.nn.max_pool2d"),
)
_FALLBACK = (
    *(_PERMUTE, "relax.strided_slice", "relax.broadcast_to", "relax.take"),
    *("relax.flip", "relax.tile", "relax.repeat", _RESIZE, _PAD),
)
_PASSED_ON = (*_OURS, *_FALLBACK)
_CONCAT, _RELU = "relax.concat", "relax.nn.relu"


def recognise_quantized(module: tvm.IRModule) -> tvm.IRModule:
    """Every quantize and dequantize with one scale and one zero point becomes a fake_quantize, or
    disappears into one.

    Others, such as those with a scale for each channel, stay, and run in the fallback.
    """
    return rewrite(module, lambda graph: _Recogniser(graph).run())


class _Recogniser:
    """values: for variables of codes, those that they stand for. grids: for variables of floats,
    the quantization whose values they have, None where there is none."""

    def __init__(self, graph: Dataflow) -> None:
        self.graph = graph
        self.users = graph.users()
        self.values: dict[relax.Var, relax.Expr] = {}
        self.grids: dict[relax.Var, Quantization | None] = {}

    def run(self) -> None:
        for var, expr in list(self.graph.exprs.items()):
            if not isinstance(expr, relax.Call) or not isinstance(var.ty, relax.TensorType):
                continue
            if getattr(expr.op, "name", "") == _DEQUANTIZE:
                self._dequantize(var, expr)
            elif dtype_of(var) in _SHIFT:
                self._codes(var, expr)
            else:
                self._floats(var, expr)
        self._again()

    def _codes(self, var: relax.Var, call: relax.Call) -> None:
        """Note what codes stand for, where that is known."""
        name = getattr(call.op, "name", "")
        if name == _QUANTIZE:
            found = _quantization(self.graph, call, dtype_of(var))
            if found is not None and dtype_of(call.args[0]) == "float32":
                self.values[var] = self._rounded(self._before(var, call, found), found, var)
            return
        operands = self._moved(call)
        if not operands or any(operand not in self.values for operand in operands):
            return
        values = [self.values[operand] for operand in operands]
        grid = self._grid(values)
        if grid is not None:
            moved = values if name != _CONCAT else [relax.Tuple(values)]
            made = relax.Call(call.op, [*moved, *list(call.args)[1:]], call.attrs, call.ty_args)
            if name == _PAD:
                code = float(call.attrs.pad_value) + _SHIFT[dtype_of(var)]
                fill = grid.scale * (code - grid.zero_point)
                made = relax.op.nn.pad(values[0], call.attrs.pad_width, "constant", fill)
            self.values[var] = self._bind(str(var.name), made, var, grid)

    def _dequantize(self, var: relax.Var, call: relax.Call) -> None:
        source = self.graph.resolve(call.args[0])
        if dtype_of(var) != "float32" or dtype_of(source) not in _SHIFT:
            return
        found = _quantization(self.graph, call, dtype_of(source))
        if found is None:
            return
        value = self.values.get(source)
        if value is None:
            # Codes of unknown origin, such as an input: their values are on the grid.
            floats = self._bind(f"{var.name}_codes", call, var, found)
            self.graph.rebind(var, _fake_quantize(floats, found, str(var.name)))
            self.grids[var] = found
        elif self._grid([value]) == found:
            self.graph.replace(var, value)

    def _floats(self, var: relax.Var, call: relax.Call) -> None:
        """Note the grid of what only moves values. A relu of what is never negative is left out,
        others are moved in front of the rounding, whose codes have one for zero: there a layer
        does it."""
        if getattr(call.op, "name", "") != _RELU:
            grid = self._grid(self._moved(call))
            self.grids[var] = grid if grid is None or _filled_on(grid, call) else None
            return
        source = self.graph.resolve(call.args[0])
        rounding = self.graph.call(source, ops.FAKE_QUANTIZE)
        grid = self._grid([source])
        if grid is not None and grid.zero_point == 0:
            self.graph.replace(var, source)
        elif rounding is not None and grid is not None and self._alone(call.args[0]):
            relu = self._bind(str(var.name), relax.op.nn.relu(rounding.args[0]), var, None)
            self.graph.rebind(var, _fake_quantize(relu, grid, str(var.name)))
            self.grids[var] = grid

    def _again(self) -> None:
        """Round behind what may be left to the fallback, which changes nothing, so that readers
        know that there are codes.

        Between a permutation and a reshape nothing may stand: together they can be a shuffle that
        passes codes on.
        """
        users = self.graph.users()
        for var in self.graph.live():
            call, grid = self.graph.call(var, _RESHAPE, *_FALLBACK), self.grids.get(var)
            if call is None or grid is None:
                continue
            if call.op.name == _RESHAPE:
                wanted = self.graph.call(call.args[0], _PERMUTE) is not None
            else:
                wanted = call.op.name != _PERMUTE or not self._reshaped(users.get(var, []))
            if wanted:
                moved = self._bind(str(var.name), call, var, grid)
                self.graph.rebind(var, _fake_quantize(moved, grid, str(var.name)))

    def _reshaped(self, readers: list[relax.Var | None]) -> bool:
        return all(
            reader is not None and self.graph.call(reader, _RESHAPE) is not None
            for reader in readers
        )

    def _alone(self, value: relax.Expr) -> bool:
        """Whether a dequantized value, and the codes behind it, have one reader."""
        call = self.graph.exprs.get(value)
        if not isinstance(call, relax.Call) or getattr(call.op, "name", "") != _DEQUANTIZE:
            return False
        return len(self.users[value]) == len(self.users[self.graph.resolve(call.args[0])]) == 1

    def _moved(self, call: relax.Call) -> list[relax.Expr]:
        """The operands whose elements the result consists of; none where it has others."""
        name = getattr(call.op, "name", "")
        if name == _CONCAT:
            fields = self.graph.expr(call.args[0])
            return self.graph.operands(fields) if isinstance(fields, relax.Tuple) else []
        makes = (name == _RESIZE and str(call.attrs.method) != "nearest_neighbor") or (
            name == _PAD and str(call.attrs.pad_mode) != "constant"
        )
        return [self.graph.resolve(call.args[0])] if name in _PASSED_ON and not makes else []

    def _grid(self, values: list[relax.Expr]) -> Quantization | None:
        """The one quantization that all values are rounded to."""
        grids = [self.grids.get(self.graph.resolve(value)) for value in values]
        return grids[0] if grids and all(grid == grids[0] for grid in grids) else None

    def _rounded(self, x: relax.Expr, to: Quantization, var: relax.Var) -> relax.Expr:
        x, name = self.graph.resolve(x), str(var.name)
        return x if self._grid([x]) == to else self._bind(name, _fake_quantize(x, to, name), x, to)

    def _before(self, var: relax.Var, call: relax.Call, to: Quantization) -> relax.Expr:
        """What a quantize may read: where it reads a clip of values with the same rounding, a clip
        of what those were before, for rounding keeps the order."""
        x = call.args[0]
        clip = self.graph.call(x, "relax.clip")
        if clip is None or self.users.get(x) != [var] or not self._alone(clip.args[0]):
            return x
        source = self.graph.resolve(clip.args[0])
        rounding = self.graph.call(source, ops.FAKE_QUANTIZE)
        if rounding is None or self._grid([source]) != to:
            return x
        moved = relax.Call(clip.op, [rounding.args[0], *clip.args[1:]], clip.attrs, clip.ty_args)
        return self._bind(str(var.name), moved, x, None)

    def _bind(
        self, name: str, call: relax.Call, like: relax.Expr, grid: Quantization | None
    ) -> relax.Var:
        """A new variable of float32 values, of the shape of `like`."""
        var = relax.Var(name, relax.TensorType(shape_of(like), "float32"))
        self.graph.exprs[var] = call
        self.grids[var] = grid
        return var


def _filled_on(grid: Quantization, call: relax.Call) -> bool:
    """Whether what a pad of floats puts around them is one of the values of a grid."""
    if call.op.name != _PAD:
        return True
    fill = np.array(float(call.attrs.pad_value))
    return bool(np.isclose(grid.values(grid.codes(fill)), fill, rtol=1e-6, atol=0))


def _fake_quantize(x: relax.Expr, to: Quantization, name: str) -> relax.Call:
    return ops.make(
        ops.FAKE_QUANTIZE,
        [x],
        quantization=[to.scale, to.zero_point],
        out_shape=list(shape_of(x)),
        name=name,
    )


def _quantization(graph: Dataflow, call: relax.Call, codes: str) -> Quantization | None:
    """What a quantize or dequantize says of codes of this type; None for more than one scale, and
    for what cannot be."""
    scale, zero_point = (scalar_of(graph.resolve(arg)) for arg in call.args[1:3])
    if scale is None or zero_point is None:
        return None
    try:
        return Quantization(scale=scale, zero_point=int(zero_point) + _SHIFT[codes])
    except ValueError:
        return None
