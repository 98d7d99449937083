"""From the rewritten Relax function to a Program: one kernel call after the other, every tensor with a place and a layout."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, shape_of
from subpc.passes.decide_layers import Decision
from subpc.passes.plan_layout import FramePlan, Slice, find_clamps, is_direct, plan_concats
from subpc.passes.program import Buffer, Location, Program, Step, WeightStore
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import Kernel
from subpc.schedules.layout import Frame, TensorLayout, compact_frame
from subpc.schedules.relayout import Relayout
from subpc.schedules.workload import DENSE_DIRECT, DENSE_WINOGRAD, DIRECT, WINOGRAD, Choice

_VARIABLE = re.compile(r"(lv|gv)\d*")  # what Relax calls values that the model gave no name


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a value is, and how it is laid out there; `layout` is compact for everything that is not framed."""

    location: Location
    layout: TensorLayout


class Lowering:
    """Walks the live bindings in order; `rules` holds one function an operator, which calls back into here for places and steps."""

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
        self.module, self.graph, self.isa, self.weights, self.decisions = module, graph, isa, weights, decisions
        self.choices = dict(choices or {})  # tuned schedules by layer name
        self.clamps = find_clamps(graph)
        self.frames = FramePlan(graph, self.is_direct)
        self.slices: dict[relax.Var, Slice] = plan_concats(graph)
        self.program = Program(inputs=[], outputs=[])
        self.places: dict[relax.Var, list[Place]] = {}
        self.roots: dict[relax.Var, Location] = {}
        self.results = graph.outputs()
        self.readers = graph.users()
        for index, var in enumerate(graph.inputs[:n_inputs]):
            self.program.inputs.append((shape_of(var), dtype_of(var)))
            self.places[var] = [Place(location=Location(space="input", index=index), layout=compact_layout(shape_of(var)))]

    def run(self, rules: Mapping[str, Callable[["Lowering", relax.Var, relax.Call], None]]) -> Program:
        """Lower every live binding, then copy the results that are not already in the output arrays."""
        for value in self.results:
            self.program.outputs.append((shape_of(value), dtype_of(value)))
        for var in self.graph.live():
            expr = self.graph.exprs[var]
            if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
                rules[expr.op.name](self, var, expr)
            elif isinstance(expr, relax.TupleGetItem):
                self._tuple_item(var, expr)
        for index, value in enumerate(self.results):
            self._deliver(index, value)
        return self.program

    def is_direct(self, call: relax.Call) -> bool:
        """Whether a convolution goes to the direct kernel; only the flat one can clamp what it reads."""
        attrs = ops.attributes(call)
        if attrs["name"] in self.choices:
            return self.choices[attrs["name"]]["family"] in (DIRECT, DENSE_DIRECT, WINOGRAD, DENSE_WINOGRAD)
        pattern = self.decisions[attrs["name"]].pattern
        filters = pattern.n if pattern else shape_of(call.args[1])[0] // int(attrs["groups"])
        return attrs["name"] not in self.clamps and is_direct(call, filters, self.isa)

    def overwritable(self, value: relax.Expr, var: relax.Var) -> bool:
        """Whether the result `var` may be written over `value`: a tensor of its own that nobody reads later."""
        value = self.graph.resolve(value)
        if not isinstance(value, relax.Var) or var in self.slices or value in self.slices:
            return False
        makers, readers = (ops.CONV2D, ops.POOL2D, ops.ELEMENTWISE), self.readers.get(value, [])
        if self.graph.call(value, *makers) is None or None in readers:
            return False
        others = [reader for reader in readers if reader is not None and not reader.same_as(var)]
        return readers.count(var) == 1 and all(
            o in self.places and self.graph.call(o, ops.VIEW, ops.CONCAT, ops.CHANNELS) is None for o in others
        )

    def emit(self, layer: str, kernel: Kernel, operands: Mapping[str, Location | None]) -> None:
        """Append a kernel call; operands by name, in any order, and those that the kernel does not have are left out."""
        chosen = [operands[name] for name in kernel.operands]
        assert None not in chosen, f"{layer}: {kernel.operands}"
        operands_in_order = tuple(place for place in chosen if place is not None)
        self.program.steps.append(Step(layer=self._shown(layer, kernel), kernel=kernel, operands=operands_in_order))

    def _shown(self, layer: str, kernel: Kernel) -> str:
        """A step without weights has a variable's name, which tells a user nothing: it is named after the layer before it."""
        if not _VARIABLE.fullmatch(layer):
            return layer
        before = self.program.steps[-1].layer.split(" > ")[0] if self.program.steps else "input"
        return f"{before} > {kernel.family}"

    def new_buffer(self, layout: TensorLayout | None, floats: int) -> Location:
        """A fresh workspace tensor."""
        self.program.buffers.append(Buffer(floats=floats, layout=layout))
        return Location(space="workspace", index=len(self.program.buffers) - 1)

    def define(self, var: relax.Var, frame: Frame | None = None) -> Place:
        """Choose where the result `var` goes: into a concatenation, an output array, or a new buffer.

        frame None: compact.
        """
        layout = (
            compact_layout(shape_of(var)) if frame is None else TensorLayout(batch=shape_of(var)[0], channels=shape_of(var)[1], frame=frame)
        )
        slice_ = self.slices.get(var)
        if frame is not None and not frame.compact and slice_ is not None:
            root = self.root(slice_.root, frame)
            location = Location(space=root.space, index=root.index, offset=root.offset + slice_.channel * frame.plane)
        elif layout.frame.compact and var in self.results:
            location = Location(space="output", index=self.results.index(var))
        else:
            location = self.new_buffer(None if layout.frame.compact else layout, _storage_floats(var, layout))
        return self.record(var, location, layout)

    def record(self, var: relax.Var, location: Location, layout: TensorLayout) -> Place:
        """Note that `var` can be found at `location`."""
        place = Place(location=location, layout=layout)
        self.places.setdefault(var, []).append(place)
        return place

    def root(self, root: relax.Var, frame: Frame) -> Location:
        if root not in self.roots:
            layout = TensorLayout(batch=1, channels=shape_of(root)[1], frame=frame)
            self.roots[root] = self.new_buffer(layout, layout.floats)
        return self.roots[root]

    def sliced(self, var: relax.Var, frame: Frame) -> Location | None:
        """Where `var` belongs inside a concatenation that is stored as `frame`, None if nowhere."""
        slice_ = self.slices.get(var)
        if slice_ is None or frame.compact:
            return None
        root = self.root(slice_.root, frame)
        return Location(space=root.space, index=root.index, offset=root.offset + slice_.channel * frame.plane)

    def home(self, value: relax.Expr) -> Place:
        """Where a value was first written; constants are placed among the weights."""
        value = self.graph.resolve(value)
        constant = constant_of(value)
        if constant is not None:
            return Place(location=self.weights.add(constant), layout=compact_layout(constant.shape))
        return self.places[value][0]

    def framed(self, value: relax.Expr, frame: Frame) -> Location:
        """The value laid out as `frame`: where it is already, or a copy that is made once."""
        value = self.graph.resolve(value)
        layout = TensorLayout(batch=shape_of(value)[0], channels=shape_of(value)[1], frame=frame)
        return self._as(value, layout)

    def compact(self, value: relax.Expr) -> Location:
        """The value as a contiguous array."""
        value = self.graph.resolve(value)
        if constant_of(value) is not None:
            return self.home(value).location
        for place in self.places[value]:
            if place.layout.frame.compact:
                return place.location
        return self._as(value, compact_layout(shape_of(value)))

    def _as(self, value: relax.Expr, layout: TensorLayout) -> Location:
        for place in self.places.get(value, []):
            if place.layout == layout:
                return place.location
        home = self.home(value)
        location = self.new_buffer(None if layout.frame.compact else layout, layout.floats)
        kernel = Relayout(source=home.layout, out=layout)
        self.emit("relayout", kernel, {"x": home.location, "y": location})
        if isinstance(value, relax.Var):
            self.record(value, location, layout)
        return location

    def _tuple_item(self, var: relax.Var, expr: relax.TupleGetItem) -> None:
        place = self.places[self.graph.resolve(expr.tuple_value)][expr.index]
        self.record(var, place.location, place.layout)

    def _deliver(self, index: int, value: relax.Expr) -> None:
        """Copy result `index` to its output array unless it was written there."""
        target = Location(space="output", index=index)
        value = self.graph.resolve(value)
        if any(place.location == target for place in self.places.get(value, [])):
            return
        home = self.home(value)
        if home.layout.frame.compact:
            flat = TensorLayout(batch=1, channels=1, frame=compact_frame(1, _storage_floats(value, home.layout)))
            self.emit("output", Relayout(source=flat, out=flat), {"x": home.location, "y": target})
        else:
            self.emit("output", Relayout(source=home.layout, out=compact_layout(shape_of(value))), {"x": home.location, "y": target})


def compact_layout(shape: tuple[int, ...]) -> TensorLayout:
    """The layout of a contiguous array; four dimensions keep their meaning, others are one long row."""
    if len(shape) == 4:
        return TensorLayout(batch=shape[0], channels=shape[1], frame=compact_frame(shape[2], shape[3]))
    count = 1
    for extent in shape:
        count *= extent
    return TensorLayout(batch=1, channels=1, frame=compact_frame(1, count))


# Bytes of an element, by type.
BYTES = {"float32": 4, "int32": 4, "int64": 8, "float64": 8, "bool": 1, "uint8": 1, "int8": 1, "float16": 2}


def _storage_floats(value: relax.Expr, layout: TensorLayout) -> int:
    return -(-layout.floats * BYTES[dtype_of(value)] // 4)
