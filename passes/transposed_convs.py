"""Transposed convolutions as ordinary ones: the output pixels of each phase of the stride are a
convolution of the input."""

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, rewrite, shape_of
from subpc.schedules.interleave import NOWHERE

# A tap of a phase: output pixel stride * m + phase reads input pixel m - shift through filter tap
# `index`.
Tap = tuple[int, int]
# Phases are computed one by one where they have this many filters, a whole vector, and as much less
# to compute: the rows and columns that only some phases need are 56 % of a 4x4 plane, and 6 % of
# one of 32x32.
MIN_FILTERS, MIN_SAVED = 16, 1.1


def gather_transposed(
    graph: Dataflow, var: relax.Var, call: relax.Call, weight: np.ndarray
) -> None:
    """Give a subpc.conv2d_transpose its weights as (out, in / groups, kh, kw), or make it a
    subpc.conv2d where its stride is 1.

    weight: (in, out / groups, kh, kw), as in the model.
    """
    a = ops.attributes(call)
    inputs, filters, *size = weight.shape
    groups = a["groups"]
    gathered = weight.reshape(groups, inputs // groups, filters, *size).swapaxes(1, 2)
    gathered = gathered.reshape(groups * filters, inputs // groups, *size)
    padding = [
        (n - 1) * step - cut
        for n, step, cut in zip(size * 2, a["dilation"] * 2, a["padding"], strict=True)
    ]
    extents = shape_of(call.args[0])[2:]
    if tuple(a["strides"]) == (1, 1) and min(padding) >= 0 and max(extents) > 1:
        padding[2:] = [
            after + more for after, more in zip(padding[2:], a["output_padding"], strict=True)
        ]
        flipped = np.ascontiguousarray(gathered[:, :, ::-1, ::-1])
        graph.rebind(
            var,
            _conv(
                call, call.args[0], flipped, call.args[2], padding=padding, dilation=a["dilation"]
            ),
        )
        return
    args = [call.args[0], relax.const(np.ascontiguousarray(gathered)), *call.args[2:]]
    graph.rebind(var, ops.with_attributes(call, args))


def split_phases(module: tvm.IRModule) -> tvm.IRModule:
    """subpc.conv2d_transpose becomes stride-1 convolutions, one for all phases that have the same
    taps, and a subpc.interleave."""
    return rewrite(module, _split)


def _split(graph: Dataflow) -> None:
    taken = {
        ops.attributes(call)["name"]
        for _, call in graph.calls(ops.CONV2D, ops.LINEAR, ops.OTHER_LAYER)
    }
    for var, call in graph.calls(ops.CONV2D_TRANSPOSE):
        _Splitter(graph, var, call, taken).run()


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Rows or columns of a transposed convolution. phases: the taps of each, the largest shift
    first.

    first: the m of the first result that is computed; cut, results: what the crop leaves off in
    front, and how many m there are.
    """

    extent: int
    phases: tuple[tuple[Tap, ...], ...]
    first: int
    cut: int
    results: int

    @property
    def windows(self) -> list[tuple[int, ...]]:
        """Each set of shifts that some phase has."""
        return sorted({_shifts(taps) for taps in self.phases if taps})

    def padding(self, window: tuple[int, ...]) -> tuple[int, int]:
        """Of a convolution with these shifts, before and after."""
        last = self.first + self.results - 1 - window[-1]
        return window[0] - self.first, max(0, last - (self.extent - 1))


def _shifts(taps: tuple[Tap, ...]) -> tuple[int, ...]:
    return tuple(shift for shift, _ in taps)


def _axis(call: relax.Call, axis: int, *, alike: bool) -> _Axis | None:
    """Rows (0) or columns (1), with their phases counted from the first pixel of the full result,
    before padding cuts it (alike).

    There, phases have the same shifts as far as they have equally many taps. Counted from the first
    pixel that is left, each phase computes what is needed and nothing else. None where a
    convolution would have to begin inside the plane.
    """
    a = ops.attributes(call)
    extent, size = (shape_of(value)[2 + axis] for value in call.args[:2])
    step, cut, out = a["dilation"][axis], a["padding"][axis], a["out_shape"][2 + axis]
    # The stride from a single pixel to the next plays no part: with this one each result has a
    # single tap.
    stride = a["strides"][axis] if extent > 1 else (size - 1) * step + 1
    offset = cut if alike else 0

    def taps(phase: int) -> tuple[Tap, ...]:
        places = [(tap * step - phase - cut + offset, tap) for tap in reversed(range(size))]
        return tuple((place // stride, tap) for place, tap in places if place % stride == 0)

    phases = tuple(taps(phase) for phase in range(stride))
    first = min(offset // stride, *(shifts[0][0] for shifts in phases if shifts))
    results = (out - 1 + offset) // stride + 1 - first
    return (
        _Axis(
            extent=extent, phases=phases, first=first, cut=offset - first * stride, results=results
        )
        if first >= 0
        else None
    )


def _axes(call: relax.Call) -> tuple[_Axis, _Axis]:
    """Phases that are alike, as one convolution of many filters; or each on its own, where that
    saves more than it costs."""
    alike = [_axis(call, axis, alike=True) for axis in range(2)]
    exact = [_axis(call, axis, alike=False) for axis in range(2)]
    assert alike[0] is not None and alike[1] is not None
    if exact[0] is None or exact[1] is None:
        return alike[0], alike[1]
    (rows, columns), (own_rows, own_columns) = (alike[0], alike[1]), (exact[0], exact[1])
    as_many = _parts(own_rows, own_columns) == _parts(rows, columns)
    filters = shape_of(call.args[1])[0] // ops.attributes(call)["groups"]
    saved = rows.results * columns.results / (own_rows.results * own_columns.results)
    return (
        (own_rows, own_columns)
        if as_many or (filters >= MIN_FILTERS and saved >= MIN_SAVED)
        else (rows, columns)
    )


def _parts(rows: _Axis, columns: _Axis) -> int:
    """How many convolutions there are."""
    return len(rows.windows) * len(columns.windows)


class _Splitter:
    def __init__(self, graph: Dataflow, var: relax.Var, call: relax.Call, taken: set[str]) -> None:
        self.graph, self.var, self.call, self.taken = graph, var, call, taken
        self.rows, self.columns = _axes(call)
        self.factors = len(self.rows.phases), len(self.columns.phases)
        weight, bias = (constant_of(graph.resolve(value)) for value in call.args[1:3])
        assert weight is not None and bias is not None
        self.weight, self.bias = weight, bias
        self.starts, self.steps = [NOWHERE] * prod(self.factors), [1] * prod(self.factors)

    def run(self) -> None:
        windows = list(product(self.rows.windows, self.columns.windows))
        parts, channels = [], 0
        for number, window in enumerate(windows):
            parts.append(self.convolution(window, channels, self.part(number)))
            channels += shape_of(parts[-1])[1]
        batch, size = shape_of(self.var)[0], (self.rows.results, self.columns.results)
        source = parts[0]
        if len(parts) > 1:
            shape = (batch, channels, *size)
            source = self.bound(
                ops.make(ops.CONCAT, parts, out_shape=list(shape), name=self.name), shape
            )
        self.graph.rebind(self.var, self.interleaved(source))

    @property
    def name(self) -> str:
        return str(ops.attributes(self.call)["name"])

    def convolution(
        self, window: tuple[tuple[int, ...], tuple[int, ...]], start: int, name: str
    ) -> relax.Var:
        """All phases whose taps have these shifts, as one convolution: filter after filter, and the
        phases of each."""
        rows, columns = window
        phases = [
            (r, q)
            for r, q in product(range(self.factors[0]), range(self.factors[1]))
            if _shifts(self.rows.phases[r]) == rows and _shifts(self.columns.phases[q]) == columns
        ]
        for index, (r, q) in enumerate(phases):
            self.starts[r * self.factors[1] + q] = start + index
            self.steps[r * self.factors[1] + q] = len(phases)
        filters = np.stack([self.taps(r, q) for r, q in phases], axis=1)
        weight = filters.reshape(-1, *filters.shape[2:])
        (top, bottom), (left, right) = self.rows.padding(rows), self.columns.padding(columns)
        shape = (shape_of(self.var)[0], len(weight), self.rows.results, self.columns.results)
        call = _conv(
            self.call,
            self.call.args[0],
            weight,
            relax.const(np.repeat(self.bias, len(phases))),
            padding=[top, left, bottom, right],
            dilation=[shifts[0] - shifts[1] if len(shifts) > 1 else 1 for shifts in window],
            name=name,
            layer=self.name,
            layer_shape=list(self.weight.shape),
            layer_strides=list(ops.attributes(self.call)["strides"]),
            out_shape=list(shape),
        )
        return self.bound(call, shape)

    def taps(self, row: int, column: int) -> np.ndarray:
        """The filters of one phase, (out, in / groups, rows, columns)."""
        rows, columns = (
            [tap for _, tap in taps]
            for taps in (self.rows.phases[row], self.columns.phases[column])
        )
        return self.weight[:, :, rows][..., columns]

    def part(self, number: int) -> str:
        """A name for one of the convolutions."""
        name = next(
            name
            for i in range(len(self.taken) + 1)
            if (name := f"{self.name}/{number}" + "'" * i) not in self.taken
        )
        self.taken.add(name)
        return name

    def bound(self, call: relax.Call, shape: tuple[int, ...]) -> relax.Var:
        var = relax.Var(str(self.var.name), relax.TensorType(shape, "float32"))
        self.graph.exprs[var] = call
        return var

    def interleaved(self, source: relax.Var) -> relax.Call:
        """The phases where they belong; of a single pixel all are there already."""
        out, count = list(shape_of(self.var)), prod(self.factors)
        whole = shape_of(source)[2:] == (1, 1) and tuple(out[2:]) == self.factors
        if whole and self.starts == list(range(count)):
            return ops.make(ops.VIEW, [source], out_shape=out)
        return ops.make(
            ops.INTERLEAVE,
            [source, *([self.call.args[2]] if NOWHERE in self.starts else [])],
            name=self.name,
            factors=list(self.factors),
            crop=[self.rows.cut, self.columns.cut],
            starts=self.starts,
            steps=self.steps,
            activation=ops.attributes(self.call)["activation"],
            out_shape=out,
        )


def _conv(
    call: relax.Call, x: relax.Expr, weight: np.ndarray, bias: relax.Expr, **changed: Any
) -> relax.Call:
    """A stride-1 convolution that stands for a transposed one, or a part of it."""
    a = ops.attributes(call)
    attrs = {
        "name": a["name"],
        "groups": a["groups"],
        "activation": a["activation"],
        "out_shape": list(a["out_shape"]),
    }
    return ops.make(
        ops.CONV2D, [x, relax.const(weight), bias], strides=[1, 1], **{**attrs, **changed}
    )
