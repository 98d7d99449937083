"""The strongest compression whose loss of accuracy is allowed: bisection over strengths, then back
off layer by layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from subpc.algorithms.method import Setting
from subpc.algorithms.registry import method_of
from subpc.errors import ConfigError

if TYPE_CHECKING:
    from subpc.algorithms.config import Config
    from subpc.algorithms.report import LayerResult

# Layers that are tried again, one by one, after others were left alone.
_RETRIES = 6


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One compression that was tried: accuracy in per cent, bytes of the weights, and what was done
    to each layer, with its SNR."""

    accuracy: float
    bytes: int
    layers: "Sequence[LayerResult]"


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """One attempt of a search as its report tells it: accuracy in per cent, bytes of the weights,
    whether the loss is allowed."""

    setting: str
    left_alone: int
    accuracy: float
    bytes: int
    within: bool


# (configuration, what is tried in words, how many were tried before) -> what it gives
TryConfig = Callable[["Config", str, int], Attempt]


class StrengthSearch:
    """Finds the strongest setting of `config` that loses at most `max_drop` points of `reference`,
    an accuracy in per cent.

    fixed: names of settings that the user decided. steps: what was tried, in order; setting,
    left_alone: what was found.
    """

    def __init__(
        self,
        config: "Config",
        attempt: TryConfig,
        *,
        reference: float,
        max_drop: float,
        fixed: frozenset[str],
    ) -> None:
        if not 0 <= max_drop <= 100:
            raise ConfigError(
                f"max_drop is {max_drop}; points of accuracy from 0 to 100 are accepted."
            )
        self.method, self.fixed = method_of(config), fixed
        self.base = self.method.gentlest(config, fixed)
        self.attempt = attempt
        self.reference, self.allowed = reference, reference - max_drop
        self.steps: list[SearchStep] = []
        self.left_alone: tuple[str, ...] = ()
        self.setting: Setting = {}
        self._known: dict[tuple[Any, ...], Attempt] = {}

    def run(self) -> "tuple[Config, Attempt]":
        """The configuration and what it gives; ConfigError where even the gentlest loses too
        much."""
        best: Attempt | None = None
        stronger: list[list[Setting]] = []
        for rungs in self._ladders():
            index, outcome = self._climb(rungs)
            best = outcome or best
            stronger.append([{**self.setting, **rung} for rung in rungs[index + 1 :]])
            if index >= 0:
                self.setting |= rungs[index]
            if index < 0 and best is None:
                break
        for settings in stronger:
            best = self._back_off_from(settings, best)
        if best is None:
            worst = max(self.steps, key=lambda step: step.accuracy)
            raise ConfigError(
                f"Even {worst.setting} loses {self.reference - worst.accuracy:.2f} points of"
                f" {self.reference:.2f} %, more than --max-drop allows.\nAllow more, give other"
                " settings, or pass --calibration."
            )
        return self._config(self.setting, self.left_alone), best

    def _ladders(self) -> list[list[Setting]]:
        found = self.method.ladders(self.fixed)
        if not found:
            raise ConfigError(
                "The strength of every part is given, so there is nothing to search.\nLeave one"
                " out, or leave out --max-drop."
            )
        return found

    def _config(self, setting: Setting, alone: tuple[str, ...]) -> "Config":
        changed: Config = self.method.without(replace(self.base, **setting), alone)
        return changed

    def _try(self, setting: Setting, alone: tuple[str, ...] = ()) -> Attempt:
        key = (*sorted(setting.items()), *sorted(alone))
        if key not in self._known:
            text = setting_words(setting) + (f", {len(alone)} layers left alone" if alone else "")
            outcome = self.attempt(self._config(setting, alone), text, len(self.steps))
            self._known[key] = outcome
            facts: dict[str, Any] = {
                "accuracy": outcome.accuracy,
                "bytes": outcome.bytes,
                "within": self._within(outcome),
            }
            self.steps.append(
                SearchStep(setting=setting_words(setting), left_alone=len(alone), **facts)
            )
        return self._known[key]

    def _within(self, outcome: Attempt) -> bool:
        # Rounding of the sum that an accuracy is computed from is no loss.
        return outcome.accuracy >= self.allowed - 1e-9

    def _climb(self, rungs: list[Setting]) -> tuple[int, Attempt | None]:
        """The highest rung that is allowed, by bisection, -1 where none is; and what it gives."""
        low, high, found = -1, len(rungs), None
        while high - low > 1:
            middle = (low + high) // 2
            outcome = self._try({**self.setting, **rungs[middle]})
            if self._within(outcome):
                low, found = middle, outcome
            else:
                high = middle
        return low, found

    def _back_off_from(self, settings: list[Setting], best: Attempt | None) -> Attempt | None:
        """Each setting that is too strong as a whole, until one gains nothing."""
        for setting in settings:
            better = self._back_off(setting, best)
            if better is best:
                break
            best = better
        return best

    def _back_off(self, setting: Setting, best: Attempt | None) -> Attempt | None:
        """A setting that loses too much, without the layers that it hurts most: taken where the
        file becomes smaller."""
        order = harm_order(self._try(setting).layers)
        low, high, found = 0, len(order), None
        while high - low > 1:
            middle = (low + high) // 2
            outcome = self._try(setting, tuple(order[:middle]))
            if self._within(outcome):
                high, found = middle, outcome
            else:
                low = middle
        if found is None:
            return best
        alone, found = self._take_back(setting, tuple(order[:high]), found)
        if best is not None and found.bytes >= best.bytes:
            return best
        self.setting, self.left_alone = setting, alone
        return found

    def _take_back(
        self, setting: Setting, alone: tuple[str, ...], found: Attempt
    ) -> tuple[tuple[str, ...], Attempt]:
        """Try the largest of the layers that were left alone again, one after the other."""
        sizes = {layer.name: layer.bytes for layer in found.layers}
        for name in sorted(alone, key=lambda name: -sizes.get(name, 0))[:_RETRIES]:
            fewer = tuple(other for other in alone if other != name)
            outcome = self._try(setting, fewer)
            if self._within(outcome):
                alone, found = fewer, outcome
        return alone, found


def setting_words(setting: Setting) -> str:
    """`bits 4, ratio 0.3`."""
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in setting.items())


def harm_order(layers: "Sequence[LayerResult]") -> list[str]:
    """Names of the compressed layers, first those whose leaving alone takes away the most noise for
    its bytes.

    A layer's own noise is what its output's noise-to-signal ratio rises by over that of the layer
    before it, or the square of its filters' relative error where the output cannot be compared; its
    price is what the file grows by.
    """
    harms, before = {}, 0.0
    for layer in layers:
        noise = 10 ** (-layer.snr / 10) if layer.snr is not None else None
        own = max(noise - before, 0.0) if noise is not None else 0.0
        before = noise if noise is not None else before
        own = max(own, layer.error_after**2)
        if layer.bits < 32 or layer.kept < layer.filters or layer.sparsity > 0:
            harms[layer.name] = own / max(_price(layer), 1)
    return sorted(harms, key=lambda name: -harms[name])


def _price(layer: "LayerResult") -> float:
    """Bytes that the layer would take more."""
    share = layer.bits / 32 * layer.kept / layer.filters * (1 - layer.sparsity)
    return layer.bytes * (1 / max(share, 1e-3) - 1)
