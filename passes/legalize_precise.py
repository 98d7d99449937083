"""What TVM's library computes with large rounding errors: normalisations and cumulative sums.

Its variance is a difference of squares, which loses everything where the mean is large beside the
deviation. Here the mean comes first, then the squares of the distances from it. A cumulative sum
has no other order than its own, so it is kept in float64, as in PyTorch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import relax, te, tirx, topi

from subpc.passes.dataflow import shape_of

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What is normalised together: all elements that differ along `axes` only, and in one of
    `groups` equal parts of axis `split`."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    split: int = -1
    groups: int = 1

    @property
    def kept(self) -> list[int]:
        return [axis for axis in range(len(self.shape)) if axis not in self.axes]

    @property
    def row_shape(self) -> list[int]:
        """One extent for every kept axis; groups where that axis is split."""
        return [self.groups if axis == self.split else self.shape[axis] for axis in self.kept]

    def inside(self) -> list[int]:
        """What a sum over one row runs over."""
        return [
            self._part if axis == self.split else self.shape[axis]
            for axis in range(len(self.shape))
            if self._summed(axis)
        ]

    @property
    def _part(self) -> int:
        return self.shape[self.split] // self.groups

    def _summed(self, axis: int) -> bool:
        return axis in self.axes or axis == self.split

    def element(self, row: Sequence[Any], inside: Sequence[Any]) -> list[Any]:
        """The index of an element, from its row's and its place in it."""
        rows, places, index = iter(row), iter(inside), []
        for axis in range(len(self.shape)):
            if axis == self.split:
                index.append(next(rows) * self._part + next(places))
            else:
                index.append(next(places) if axis in self.axes else next(rows))
        return index

    def row(self, element: Sequence[Any]) -> list[Any]:
        """The index of the row that an element lies in."""
        return [
            tirx.floordiv(element[axis], self._part) if axis == self.split else element[axis]
            for axis in self.kept
        ]


def _moments(rows: _Rows, x: Any) -> tuple[Callable[[Sequence[Any], Sequence[Any]], Any], Any]:
    """The distance of an element from the mean of its row, as a function of both indices, and the
    variance of the rows.

    The first mean is rounded, which shows where it is large beside the deviation: what is left of
    it is taken off as well.
    """
    inside = rows.inside()
    count = float(prod(inside))

    def mean_of(name: str, term: Callable[[Sequence[Any], Sequence[Any]], Any]) -> Any:
        axes = [te.reduce_axis((0, extent), f"{name}{i}") for i, extent in enumerate(inside)]
        total = te.compute(
            rows.row_shape,
            lambda *row: te.sum(term(row, rows.element(row, axes)), axis=axes),
            name=f"{name}_sum",
        )
        return te.compute(
            rows.row_shape, lambda *row: total(*row) / tirx.const(count, "float32"), name=name
        )

    mean = mean_of("mean", lambda _, at: x(*at))
    rest = mean_of("rest", lambda row, at: x(*at) - mean(*row))
    square = mean_of("square", lambda row, at: (x(*at) - mean(*row)) * (x(*at) - mean(*row)))
    difference = te.compute(
        rows.row_shape, lambda *row: square(*row) - rest(*row) * rest(*row), name="difference"
    )
    # Rounding must not make the variance of equal values negative; NaN stays NaN.
    variance = te.compute(
        rows.row_shape,
        lambda *row: tirx.Select(difference(*row) < 0.0, 0.0, difference(*row)),
        name="variance",
    )
    return lambda row, at: x(*at) - mean(*row) - rest(*row), variance


def _normalised(rows: _Rows, parameter_axes: Sequence[int], epsilon: float) -> Callable[..., Any]:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta; gamma and beta have the extents of
    `parameter_axes`."""

    def compute(x: Any, gamma: Any, beta: Any) -> Any:
        distance, variance = _moments(rows, x)
        scale = te.compute(
            rows.row_shape,
            lambda *row: 1.0 / te.sqrt(variance(*row) + tirx.const(epsilon, "float32")),
            name="scale",
        )

        def result(*at: Any) -> Any:
            row, parameter = rows.row(at), [at[axis] for axis in parameter_axes]
            return distance(row, at) * scale(*row) * gamma(*parameter) + beta(*parameter)

        return te.compute(rows.shape, result, name="normalised")

    return compute


def _variance(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    shape, axes = shape_of(call.args[0]), call.attrs.axis
    rank = len(shape)
    rows = _Rows(
        shape=shape,
        axes=tuple(range(rank))
        if axes is None
        else tuple(sorted(int(axis) % rank for axis in axes)),
    )

    def compute(x: Any) -> Any:
        _, variance = _moments(rows, x)
        kept = rows.kept if call.attrs.keepdims else range(len(rows.kept))
        return te.compute(
            shape_of(call), lambda *at: variance(*(at[axis] for axis in kept)), name="result"
        )

    return builder.call_te(compute, call.args[0], primfunc_name_hint="variance")


def _legalize(
    rows_of: Callable[[tuple[int, ...], Any], tuple[_Rows, Sequence[int]]], name: str
) -> Legalize:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        rows, parameter_axes = rows_of(shape_of(call.args[0]), call.attrs)
        compute = _normalised(rows, parameter_axes, float(call.attrs.epsilon))
        return builder.call_te(compute, *call.args, primfunc_name_hint=name)

    return legalize


def _axes(attrs: Any, rank: int) -> tuple[int, ...]:
    return tuple(sorted(int(axis) % rank for axis in attrs.axes))


def _layer(shape: tuple[int, ...], attrs: Any) -> tuple[_Rows, Sequence[int]]:
    axes = _axes(attrs, len(shape))
    return _Rows(shape=shape, axes=axes), axes


def _instance(shape: tuple[int, ...], attrs: Any) -> tuple[_Rows, Sequence[int]]:
    return _Rows(shape=shape, axes=_axes(attrs, len(shape))), [int(attrs.channel_axis) % len(shape)]


def _group(shape: tuple[int, ...], attrs: Any) -> tuple[_Rows, Sequence[int]]:
    channel = int(attrs.channel_axis) % len(shape)
    return _Rows(
        shape=shape, axes=_axes(attrs, len(shape)), split=channel, groups=int(attrs.num_groups)
    ), [channel]


def _cumsum(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, exclusive = (
        (None if call.attrs.axis is None else int(call.attrs.axis)),
        bool(call.attrs.exclusive),
    )
    dtype = str(call.ty.dtype)
    wide = "float64" if dtype == "float32" else dtype

    def compute(x: Any) -> Any:
        return topi.cast(topi.cumsum(topi.cast(x, wide), axis, wide, exclusive), dtype)

    return builder.call_te(compute, call.args[0], primfunc_name_hint="cumsum")


PRECISE: dict[str, Legalize] = {
    "relax.nn.layer_norm": _legalize(_layer, "layer_norm"),
    "relax.nn.instance_norm": _legalize(_instance, "instance_norm"),
    "relax.nn.group_norm": _legalize(_group, "group_norm"),
    "relax.cumsum": _cumsum,
    "relax.variance": _variance,
}
