"""From gentle to strong: the settings that a search goes through for each method, and how layers are left alone."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subpc.errors import ConfigError

if TYPE_CHECKING:
    from subpc.algorithms.config import Config

Setting = dict[str, Any]
# Widths from DF-MPC's gentlest to its strongest: (low, high).
_WIDTHS = ((8, 8), (6, 8), (6, 6), (4, 6), (3, 6), (2, 6), (2, 5), (2, 4), (2, 3))
_BITS = (8, 7, 6, 5, 4, 3, 2)
_RATIOS = tuple(round(0.05 * i, 2) for i in range(1, 19))
_SPARSITIES = tuple(i / 16 for i in range(1, 16))


def ladders(config: "Config", fixed: frozenset[str]) -> list[list[Setting]]:
    """Lists of settings, each from gentle to strong, to be climbed one after the other; `fixed` names what the user decided.

    UDFC: first the width of the weights with no channel removed, then the ratio. DF-MPC: both widths together. Blocks: the sparsity.
    """
    kind = type(config).__name__
    if kind == "UdfcConfig":
        free = [name for name in ("bits", "ratio") if name not in fixed]
        rungs: dict[str, list[Setting]] = {"bits": [{"bits": bits} for bits in _BITS], "ratio": [{"ratio": ratio} for ratio in _RATIOS]}
        found = [rungs[name] for name in free]
    elif kind == "DfmpcConfig":
        found = [_widths(config, fixed)] if not {"low_bits", "high_bits"} <= fixed else []
    else:
        found = [[{"sparsity": sparsity} for sparsity in _SPARSITIES]] if "sparsity" not in fixed else []
    if not found:
        raise ConfigError("The strength of every part is given, so there is nothing to search.\nLeave one out, or leave out --max-drop.")
    return found


def _widths(config: Any, fixed: frozenset[str]) -> list[Setting]:
    if "low_bits" in fixed:
        return [{"high_bits": bits} for bits in _BITS]
    if "high_bits" in fixed:
        return [{"low_bits": bits} for bits in _BITS]
    return [{"low_bits": low, "high_bits": high} for low, high in _WIDTHS]


def gentlest(config: "Config", fixed: frozenset[str]) -> "Config":
    """Where a search starts: nothing removed, and weights as wide as they can be, but for what the user decided."""
    if type(config).__name__ == "UdfcConfig" and "ratio" not in fixed:
        config = replace(config, ratio=0.0)  # type: ignore[call-arg]
    if type(config).__name__ == "UdfcConfig" and "bits" not in fixed:
        config = replace(config, bits=8)  # type: ignore[call-arg]
    return config


def without(config: "Config", layers: tuple[str, ...]) -> "Config":
    """The configuration that leaves these layers alone too."""
    name = "keep_dense" if type(config).__name__ == "BlockConfig" else "skip"
    return replace(config, **{name: (*getattr(config, name), *layers)})


def words(setting: Setting) -> str:
    """`bits 4, ratio 0.3`."""
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in setting.items())
