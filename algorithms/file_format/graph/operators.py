"""The operators without weights that a network in a file may use: PyTorch functions, and what their
options may be."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from subpc.algorithms.file_format.graph.options import (
    MAX_SIZE,
    Check,
    bound,
    floats,
    number,
    one_of,
    optional,
    switch,
    whole,
    wholes,
)

_MAX_INPUTS = 512
_DIM = whole(0, 7)
_DIMS = wholes(0, 7, counts=tuple(range(1, 9)))
_PAIR = wholes(1, counts=(2,))
_PADS = wholes(0, counts=(2,))
_PLACE = whole(-MAX_SIZE)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """function(*inputs, **options); how many inputs it takes, and what checks each option."""

    function: Callable[..., Any]
    options: Mapping[str, Check] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)


def _clip(x: torch.Tensor, *, low: float | None, high: float | None) -> torch.Tensor:
    return torch.clamp(x, low, high)


def _cat(*inputs: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat(inputs, dim)


def _slice(x: torch.Tensor, *, dim: int, start: int, end: int | None, step: int) -> torch.Tensor:
    part: torch.Tensor = x[(slice(None),) * dim + (slice(start, end, step),)]
    return part


def _reshape(x: torch.Tensor, *, shape: list[int]) -> torch.Tensor:
    """0 stands for the input's extent in that place, -1 for what is left."""
    return torch.reshape(
        x, [x.size(i) if extent == 0 else extent for i, extent in enumerate(shape)]
    )


def _max(x: torch.Tensor, *, dims: list[int], keepdim: bool) -> torch.Tensor:
    return torch.amax(x, dims, keepdim)


def _pad(x: torch.Tensor, *, pads: list[int], mode: str, value: float | None) -> torch.Tensor:
    """value None is minus infinity, as in front of a maximum."""
    return (
        F.pad(x, pads, mode, float("-inf") if value is None else value)
        if mode == "constant"
        else F.pad(x, pads, mode)
    )


def _interpolate(
    x: torch.Tensor,
    *,
    mode: str,
    size: list[int] | None,
    scale: list[float] | None,
    align: bool | None,
) -> torch.Tensor:
    return F.interpolate(x, size, scale, mode, align)


def _number(operation: Callable[[Any, Any], Any]) -> Operator:
    """An operation with a number on one side; reverse: on the left."""

    def apply(x: torch.Tensor, *, number: float, reverse: bool) -> torch.Tensor:
        result: torch.Tensor = operation(number, x) if reverse else operation(x, number)
        return result

    return Operator(function=apply, options={"number": number, "reverse": switch})


_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}
_RELATION = one_of(*_RELATIONS)
_TYPES = {
    "float32": torch.float32,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}


def _compare(x: torch.Tensor, y: torch.Tensor, *, relation: str) -> torch.Tensor:
    result: torch.Tensor = _RELATIONS[relation](x, y)
    return result


def _compare_number(x: torch.Tensor, *, relation: str, number: float) -> torch.Tensor:
    result: torch.Tensor = _RELATIONS[relation](x, number)
    return result


def _take(x: torch.Tensor, *, dim: int, places: list[int]) -> torch.Tensor:
    """The slices at these places along an axis, in this order."""
    return torch.index_select(x, dim, torch.tensor(places, device=x.device))


def _norm(x: torch.Tensor, *, order: float, dims: list[int], keepdim: bool) -> torch.Tensor:
    result: torch.Tensor = torch.linalg.vector_norm(x, order, dims, keepdim)
    return result


def _variance(
    x: torch.Tensor, *, dims: list[int], correction: float, keepdim: bool
) -> torch.Tensor:
    return torch.var(x, dims, correction=correction, keepdim=keepdim)


_Pair = list[int]
_POOL = {"kernel": _PAIR, "stride": _PAIR, "padding": _PADS, "ceil": switch}


def _max_pool(
    x: torch.Tensor, *, kernel: _Pair, stride: _Pair, padding: _Pair, ceil: bool, dilation: _Pair
) -> torch.Tensor:
    return F.max_pool2d(x, kernel, stride, padding, dilation, ceil)


def _avg_pool(
    x: torch.Tensor,
    *,
    kernel: _Pair,
    stride: _Pair,
    padding: _Pair,
    ceil: bool,
    count_pad: bool,
    divisor: int | None,
) -> torch.Tensor:
    return F.avg_pool2d(x, kernel, stride, padding, ceil, count_pad, divisor)


def _plain(function: Callable[..., Any], **options: Check) -> Operator:
    return Operator(function=function, options=options)


def _two(function: Callable[..., Any]) -> Operator:
    return Operator(function=function, inputs=(2, 2))


OPERATORS: dict[str, Operator] = {
    "relu": _plain(lambda x: F.relu(x)),
    "relu6": _plain(lambda x: F.relu6(x)),
    "clip": _plain(_clip, low=bound, high=bound),
    "sigmoid": _plain(torch.sigmoid),
    "tanh": _plain(torch.tanh),
    "silu": _plain(lambda x: F.silu(x)),
    "mish": _plain(lambda x: F.mish(x)),
    "hardswish": _plain(lambda x: F.hardswish(x)),
    "hardsigmoid": _plain(lambda x: F.hardsigmoid(x)),
    "softplus": _plain(lambda x: F.softplus(x)),
    "gelu": _plain(
        lambda x, approximate: F.gelu(x, approximate=approximate),
        approximate=one_of("none", "tanh"),
    ),
    "elu": _plain(lambda x, alpha: F.elu(x, alpha), alpha=number),
    "leaky_relu": _plain(lambda x, slope: F.leaky_relu(x, slope), slope=number),
    "softmax": _plain(lambda x, dim: torch.softmax(x, dim), dim=_DIM),
    "log_softmax": _plain(lambda x, dim: torch.log_softmax(x, dim), dim=_DIM),
    "softsign": _plain(lambda x: F.softsign(x)),
    **{
        name: _plain(getattr(torch, name))
        for name in (
            *("exp", "expm1", "log", "log1p", "log2", "log10", "erf", "sin", "cos", "tan", "atan"),
            *("sqrt", "rsqrt", "square", "reciprocal", "abs", "neg", "sign"),
            *("floor", "ceil", "round", "trunc", "logical_not"),
        )
    },
    "compare": Operator(function=_compare, options={"relation": _RELATION}, inputs=(2, 2)),
    "compare_number": _plain(_compare_number, relation=_RELATION, number=number),
    "logical_and": _two(torch.logical_and),
    "logical_or": _two(torch.logical_or),
    "where": Operator(function=torch.where, inputs=(3, 3)),
    "full_like": _plain(lambda x, value: torch.full_like(x, value), value=number),
    "cast": _plain(lambda x, to: x.to(_TYPES[to]), to=one_of(*_TYPES)),
    "power": _two(torch.pow),
    "pow": _plain(lambda x, exponent: torch.pow(x, exponent), exponent=number),
    "add": _two(torch.add),
    "sub": _two(torch.sub),
    "mul": _two(torch.mul),
    "div": _two(torch.div),
    "maximum": _two(torch.maximum),
    "minimum": _two(torch.minimum),
    "matmul": _two(torch.matmul),
    "add_number": _number(lambda a, b: a + b),
    "sub_number": _number(lambda a, b: a - b),
    "mul_number": _number(lambda a, b: a * b),
    "div_number": _number(lambda a, b: a / b),
    "cat": Operator(function=_cat, options={"dim": _DIM}, inputs=(1, _MAX_INPUTS)),
    "slice": _plain(_slice, dim=_DIM, start=_PLACE, end=optional(_PLACE), step=whole(1)),
    "reshape": _plain(_reshape, shape=wholes(-1, 1 << 24, counts=tuple(range(1, 9)))),
    "flatten": _plain(
        lambda x, start, end: torch.flatten(x, start, end), start=_DIM, end=whole(-1, 7)
    ),
    "permute": _plain(lambda x, dims: torch.permute(x, dims), dims=_DIMS),
    "squeeze": _plain(lambda x, dims: torch.squeeze(x, dims), dims=_DIMS),
    "unsqueeze": _plain(lambda x, dim: torch.unsqueeze(x, dim), dim=_DIM),
    "expand": _plain(lambda x, shape: x.expand(shape), shape=wholes(-1, counts=tuple(range(1, 9)))),
    "pad": _plain(
        _pad,
        pads=wholes(-1024, 1024, counts=(2, 4, 6, 8)),
        mode=one_of("constant", "reflect", "replicate"),
        value=bound,
    ),
    "mean": _plain(
        lambda x, dims, keepdim: torch.mean(x, dims, keepdim), dims=_DIMS, keepdim=switch
    ),
    "sum": _plain(lambda x, dims, keepdim: torch.sum(x, dims, keepdim), dims=_DIMS, keepdim=switch),
    "max": _plain(_max, dims=_DIMS, keepdim=switch),
    "min": _plain(
        lambda x, dims, keepdim: torch.amin(x, dims, keepdim), dims=_DIMS, keepdim=switch
    ),
    "prod": _plain(lambda x, dim, keepdim: torch.prod(x, dim, keepdim), dim=_DIM, keepdim=switch),
    "any": _plain(lambda x, dims, keepdim: torch.any(x, dims, keepdim), dims=_DIMS, keepdim=switch),
    "norm": _plain(_norm, order=number, dims=_DIMS, keepdim=switch),
    "variance": _plain(_variance, dims=_DIMS, correction=number, keepdim=switch),
    "argmax": _plain(
        lambda x, dim, keepdim: torch.argmax(x, dim, keepdim), dim=_DIM, keepdim=switch
    ),
    "argmin": _plain(
        lambda x, dim, keepdim: torch.argmin(x, dim, keepdim), dim=_DIM, keepdim=switch
    ),
    "cumsum": _plain(lambda x, dim: torch.cumsum(x, dim), dim=_DIM),
    "flip": _plain(lambda x, dims: torch.flip(x, dims), dims=_DIMS),
    "take": _plain(_take, dim=_DIM, places=wholes(0, counts=range(1, MAX_SIZE + 1))),
    "repeat": _plain(lambda x, counts: x.repeat(counts), counts=wholes(1, counts=range(1, 9))),
    "max_pool2d": _plain(_max_pool, **_POOL, dilation=_PAIR),
    "avg_pool2d": _plain(_avg_pool, **_POOL, count_pad=switch, divisor=optional(whole(1))),
    "adaptive_avg_pool2d": _plain(lambda x, size: F.adaptive_avg_pool2d(x, size), size=_PAIR),
    "adaptive_max_pool2d": _plain(lambda x, size: F.adaptive_max_pool2d(x, size), size=_PAIR),
    "interpolate": _plain(
        _interpolate,
        mode=one_of("nearest", "bilinear", "bicubic"),
        size=optional(wholes(1, 1 << 14, counts=(2,))),
        scale=optional(floats(2)),
        align=optional(switch),
    ),
    "pixel_shuffle": _plain(lambda x, factor: F.pixel_shuffle(x, factor), factor=whole(1, 64)),
    "local_response_norm": _plain(
        lambda x, size, alpha, beta, k: F.local_response_norm(x, size, alpha, beta, k),
        size=whole(1, 1024),
        alpha=number,
        beta=number,
        k=number,
    ),
}
