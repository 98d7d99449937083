"""From the rewritten Relax function to a Program: one kernel call after the other, every tensor
with a place and a layout."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, shape_of
from subpc.passes.decide_layers import Decision
from subpc.passes.plan_layout import FramePlan, Slice, family_by_rule, find_clamps, plan_concats
from subpc.passes.program import BLOB, Buffer, Location, Program, Step, WeightStore
from subpc.schedules.families import family_of
from subpc.schedules.family import Family, Tile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import Kernel
from subpc.schedules.layout import Frame, TensorLayout, compact_frame, itemsize
from subpc.schedules.operand import Operand
from subpc.schedules.quantization import CODES
from subpc.schedules.relayout import Relayout
from subpc.schedules.workload import Choice

_VARIABLE = re.compile(r"(lv|gv)\d*")  # what Relax calls values that the model gave no name


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a value is, and how it is laid out there; `layout` is compact for everything that is
    not framed."""

    location: Location
    layout: TensorLayout


class Lowering:
    """Walks the live bindings in order; `rules` holds one function an operator, which calls back
    into here for places and steps."""

    def __init__(
        self,
        module: tvm.IRModule,
        graph: Dataflow,
        n_inputs: int,
        isa: VectorIsa,
        weights: WeightStore,
        decisions: dict[str, Decision],
        choices: Mapping[str, Choice] | None = None,
    ) -> None:
        self.module, self.graph, self.isa, self.weights, self.decisions = (
            module,
            graph,
            isa,
            weights,
            decisions,
        )
        self.choices = dict(choices or {})  # tuned schedules by layer name
        self.clamps = find_clamps(graph)
        self.frames = FramePlan(graph, lambda call: self.family(call).sorts_strides)
        self.slices: dict[relax.Var, Slice] = plan_concats(graph)
        self.program = Program(inputs=[], outputs=[])
        self.places: dict[relax.Var, list[Place]] = {}
        self.roots: dict[relax.Var, Location] = {}
        self.results = graph.outputs()
        self.readers = graph.users()
        for index, var in enumerate(graph.inputs[:n_inputs]):
            self.program.inputs.append((shape_of(var), dtype_of(var)))
            self.places[var] = [
                Place(location=Location(space="input", index=index), layout=layout_of(var))
            ]

    def run(
        self, rules: Mapping[str, Callable[["Lowering", relax.Var, relax.Call], None]]
    ) -> Program:
        """Lower every live binding, then copy the results that are not already in the output
        arrays."""
        for value in self.results:
            self.program.outputs.append((shape_of(value), dtype_of(value)))
        for var in self.graph.live():
            expr = self.graph.exprs[var]
            if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
                first = len(self.program.steps)
                rules[expr.op.name](self, var, expr)
                self._note_codes(var, expr, first)
            elif isinstance(expr, relax.TupleGetItem):
                self._tuple_item(var, expr)
        for index, value in enumerate(self.results):
            self._deliver(index, value)
        return self.program

    def family(self, call: relax.Call) -> Family[Any]:
        """The kernels that a convolution gets: those of its tuned schedule, else by rule; only flat
        ones can clamp what they read."""
        name = ops.attributes(call)["name"]
        if name in self.choices:
            return family_of(self.choices[name])
        pattern = self.decisions[name].pattern
        return family_by_rule(
            call, pattern.n if pattern else 0, self.isa, clamped=name in self.clamps
        )

    def tuned(self, layer: str, family: Family[Tile]) -> Tile | None:
        """The tile that tuning chose for a layer, None if it has chosen none for kernels of this
        family."""
        return family.tile_of(self.choices.get(layer))

    def overwritable(self, value: relax.Expr, var: relax.Var) -> bool:
        """Whether the result `var` may be written over `value`: a tensor of its own that nobody
        reads later."""
        value = self.graph.resolve(value)
        if not isinstance(value, relax.Var) or var in self.slices or value in self.slices:
            return False
        makers, readers = (ops.CONV2D, ops.POOL2D, ops.ELEMENTWISE), self.readers.get(value, [])
        if self.graph.call(value, *makers) is None or None in readers:
            return False
        others = [reader for reader in readers if reader is not None and not reader.same_as(var)]
        return readers.count(var) == 1 and all(
            o in self.places and self.graph.call(o, ops.VIEW, ops.CONCAT, ops.CHANNELS) is None
            for o in others
        )

    def emit(self, layer: str, kernel: Kernel, operands: Mapping[str, Location | None]) -> None:
        """Append a kernel call; operands by name, in any order, and those that the kernel does not
        have are left out."""
        chosen = [operands[name] for name in kernel.operands]
        assert None not in chosen, f"{layer}: {kernel.operands}"
        operands_in_order = tuple(place for place in chosen if place is not None)
        self.program.steps.append(
            Step(layer=self._shown(layer, kernel), kernel=kernel, operands=operands_in_order)
        )

    def _shown(self, layer: str, kernel: Kernel) -> str:
        """A step without weights has a variable's name, which tells a user nothing: it is named
        after the layer before it."""
        if not _VARIABLE.fullmatch(layer):
            return layer
        before = self.program.steps[-1].layer.split(" > ")[0] if self.program.steps else "input"
        return f"{before} > {kernel.family}"

    def new_buffer(self, layout: TensorLayout | Operand) -> Location:
        """A fresh workspace tensor; what is compact, or nothing but memory, may have been anything
        before."""
        framed = layout if isinstance(layout, TensorLayout) and not layout.frame.compact else None
        self.program.buffers.append(Buffer(bytes=layout.bytes, layout=framed))
        return Location(space="workspace", index=len(self.program.buffers) - 1)

    def define(self, var: relax.Var, frame: Frame | None = None) -> Place:
        """Choose where the result `var` goes: into a concatenation, an output array, or a new
        buffer.

        frame None: compact.
        """
        layout = layout_of(var) if frame is None else framed_layout(var, frame)
        location = self.sliced(var, layout.frame)
        if location is None and layout.frame.compact and var in self.results:
            location = Location(space="output", index=self.results.index(var))
        elif location is None:
            location = self.new_buffer(layout)
        return self.record(var, location, layout)

    def record(self, var: relax.Var, location: Location, layout: TensorLayout) -> Place:
        """Note that `var` can be found at `location`."""
        place = Place(location=location, layout=layout)
        self.places.setdefault(var, []).append(place)
        return place

    def root(self, root: relax.Var, frame: Frame) -> Location:
        if root not in self.roots:
            self.roots[root] = self.new_buffer(replace(framed_layout(root, frame), batch=1))
        return self.roots[root]

    def sliced(self, var: relax.Var, frame: Frame) -> Location | None:
        """Where `var` belongs inside a concatenation that is stored as `frame`, None if nowhere."""
        slice_ = self.slices.get(var)
        if slice_ is None or frame.compact:
            return None
        root = self.root(slice_.root, frame)
        return replace(
            root, offset=root.offset + slice_.channel * framed_layout(var, frame).plane_bytes
        )

    def home(self, value: relax.Expr) -> Place:
        """Where a value was first written; constants are placed among the weights."""
        value = self.graph.resolve(value)
        constant = constant_of(value)
        if constant is not None:
            return Place(
                location=self.weights.add(constant),
                layout=compact_layout(constant.shape, str(constant.dtype)),
            )
        return self.places[value][0]

    def framed(self, value: relax.Expr, frame: Frame) -> Location:
        """The value laid out as `frame`: where it is already, or a copy that is made once."""
        value = self.graph.resolve(value)
        return self._as(value, framed_layout(value, frame))

    def compact(self, value: relax.Expr) -> Location:
        """The value as a contiguous array."""
        value = self.graph.resolve(value)
        if constant_of(value) is not None:
            return self.home(value).location
        for place in self.places[value]:
            if place.layout.frame.compact:
                return place.location
        return self._as(value, layout_of(value))

    def _as(self, value: relax.Expr, layout: TensorLayout) -> Location:
        for place in self.places.get(value, []):
            if place.layout == layout:
                return place.location
        home = self.home(value)
        location = self.new_buffer(layout)
        kernel = Relayout(source=home.layout, out=layout)
        self.emit("relayout", kernel, {"x": home.location, "y": location})
        if isinstance(value, relax.Var):
            self.record(value, location, layout)
        return location

    def _tuple_item(self, var: relax.Var, expr: relax.TupleGetItem) -> None:
        place = self.places[self.graph.resolve(expr.tuple_value)][expr.index]
        self.record(var, place.location, place.layout)

    def _note_codes(self, var: relax.Var, call: relax.Call, first: int) -> None:
        """Let the steps from `first` on that write the codes of `var` know what those stand for."""
        if call.op.name not in ops.ALL or dtype_of(var) != CODES:
            return  # an operator of the fallback may have several results
        quantization = ops.quantization_of(ops.attributes(call).get("quantization"))
        places = {place.location for place in self.places.get(var, [])}
        for number, step in enumerate(self.program.steps[first:], first):
            if step.operands[-1] in places:
                self.program.steps[number] = replace(step, quantization=quantization)

    def _deliver(self, index: int, value: relax.Expr) -> None:
        """Copy result `index` to its output array unless it was written there."""
        target = Location(space="output", index=index)
        value = self.graph.resolve(value)
        if any(place.location == target for place in self.places.get(value, [])):
            return
        home = self.home(value)
        row = _bytes_as_row(home.layout.bytes)
        source, out = (row, row) if home.layout.frame.compact else (home.layout, layout_of(value))
        self.emit("output", Relayout(source=source, out=out), {"x": home.location, "y": target})


def layout_of(value: relax.Expr) -> TensorLayout:
    """The layout of a tensor as a contiguous array."""
    return compact_layout(shape_of(value), dtype_of(value))


def framed_layout(value: relax.Expr, frame: Frame) -> TensorLayout:
    """The layout of a tensor of four dimensions on planes like `frame`."""
    return TensorLayout(
        batch=shape_of(value)[0], channels=shape_of(value)[1], frame=frame, dtype=dtype_of(value)
    )


def compact_layout(shape: tuple[int, ...], dtype: str) -> TensorLayout:
    """The layout of a contiguous array; four dimensions keep their meaning, others are one long
    row."""
    if len(shape) == 4:
        return TensorLayout(
            batch=shape[0], channels=shape[1], frame=compact_frame(shape[2], shape[3]), dtype=dtype
        )
    return TensorLayout(batch=1, channels=1, frame=compact_frame(1, math.prod(shape)), dtype=dtype)


def _bytes_as_row(size: int) -> TensorLayout:
    """A contiguous array of any shape and type, for copying."""
    word = itemsize(BLOB)
    return (
        compact_layout((size,), "uint8") if size % word else compact_layout((size // word,), BLOB)
    )
