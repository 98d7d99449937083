"""A layer's result in two models: which of the values after it are the same thing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from subpc.library.report import FLOATS, ResultInfo

if TYPE_CHECKING:
    from subpc.frontend.trace import TracedValue

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A layer's result in a compiled library: after its batch norm, and what `info` says was fused
    behind it."""

    value: Array
    info: ResultInfo


Layer: TypeAlias = "Fused | tuple[TracedValue, ...]"


@dataclass(frozen=True, kw_only=True)
class Traced:
    """Outputs of one run, and each layer's result by name."""

    outputs: list[Array]
    layers: "dict[str, Layer]"


def result_shape(layer: Layer) -> tuple[int, ...]:
    """Of the layer's own result."""
    value = layer.value if isinstance(layer, Fused) else layer[0].value
    return tuple(value.shape)


def aligned(a: Layer, b: Layer) -> tuple[Array, Array] | str:
    """One value of a layer in both models, two arrays of one shape, or why there is none."""
    if isinstance(a, Fused) and isinstance(b, Fused):
        if (a.info.residual, a.info.activation) != (b.info.residual, b.info.activation):
            return "the two libraries fuse different operators into it"
        return _same_size(a.value, b.value)
    if isinstance(a, Fused):
        found = fused_stage(b, a.info) if not isinstance(b, Fused) else None
        return _same_size(a.value, found) if found is not None else _NOT_FOUND
    if isinstance(b, Fused):
        found = fused_stage(a, b.info)
        return _same_size(found, b.value) if found is not None else _NOT_FOUND
    return _same_size(_normalised(a), _normalised(b))


_NOT_FOUND = "what the library fuses into it is spelled in several operators in the other model"


def fused_stage(stages: "tuple[TracedValue, ...]", info: ResultInfo) -> Array | None:
    """The value, (n, c, ...), after everything that a library has fused into the layer: affine
    operators, the addition, the activation, the rounding to codes."""
    fused = {"add": info.residual, "other": info.activation != "none"}
    waiting = [kind for kind, present in fused.items() if present]
    first, *rest = [stage for stage in stages if stage.kind != "codes"]
    free, found = "affine", first
    for stage in rest:
        if waiting and stage.kind == waiting[0]:
            del waiting[0]
            free = ""  # what follows is no part of the layer, but its rounding
        elif stage.kind == "rounded" and info.dtype != FLOATS:
            free = "rounded"
        elif stage.kind != free:
            break
        found = stage
    return None if waiting else found.value


def _normalised(stages: "tuple[TracedValue, ...]") -> Array:
    """The value after the batch norm and other affine operators behind the layer, which exporters
    fold into its weights."""
    value = stages[0].value
    for stage in stages[1:]:
        if stage.kind != "affine":
            break
        value = stage.value
    return value


def _same_size(a: Array, b: Array) -> tuple[Array, Array] | str:
    if a.shape[0] != b.shape[0] or a.size != b.size:
        return f"different shapes: {a.shape} and {b.shape}"
    return a, b
