"""Which way of calibration changes a network's outputs least, by trial on images that it was not
found with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from subpc.calibration.deviation import deviation
from subpc.calibration.interpret import Interpreter
from subpc.calibration.observe import in_batches
from subpc.calibration.quantize import Calibrated, Settings, calibrate
from subpc.calibration.ranges import METHODS
from subpc.passes.dataflow import Dataflow
from subpc.progress import Progress, silent

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten

WITHOUT = "without images"
# Samples at most that ways are compared on, and of them so many together.
_COMPARED, _BATCH = 32, 8


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The network as the best way rounds it. way: its name; deviations: of each way, the squared
    error of the outputs as a share of their square."""

    calibrated: Calibrated
    way: str
    deviations: dict[str, float]


def choose_calibration(
    network: "Rewritten",
    inputs: Tensor | Sequence[Tensor],
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Choice:
    """The way without images, those of METHODS, and one that scales channels to one range: ranges
    are found with half of the samples and compared on the others; the best way then sees all.

    So images are not taken where they do worse than none. inputs: as for `quantize`.
    """
    settings = settings or Settings()
    graph = Dataflow(network.module["main"])
    given = [inputs] if isinstance(inputs, Tensor) else inputs
    whole = calibrate(network, given, settings)  # refuses values that are not finite
    samples = in_batches(graph, given, 1)
    half, rest = _joined(samples[::2]), _joined(samples[1::2] or samples)
    compared = in_batches(graph, rest, _BATCH)[: _COMPARED // _BATCH]
    floats = Interpreter(network.module)
    expected = [floats.run(*batch) for batch in compared]
    seen = calibrate(network, half, settings)
    ways = {WITHOUT: calibrate(network, None, settings)}
    ways |= {method: _by(seen, method) for method in METHODS}
    ways["equalized"] = calibrate(network, half, replace(settings, equalize=True))
    deviations = {}
    for number, (name, way) in enumerate(ways.items()):
        progress(f"calibration {name}", number, len(ways))
        deviations[name] = deviation(way.rounded(), compared, expected)
    best = min(deviations, key=lambda name: deviations[name])
    found = ways[WITHOUT]
    if best == "equalized":
        found = calibrate(network, given, replace(settings, equalize=True))
    elif best in METHODS:
        found = _by(whole, best)
    return Choice(calibrated=found, way=best, deviations=deviations)


def _by(seen: Calibrated, method: str) -> Calibrated:
    """The same statistics and codes of weights, with ranges of another method."""
    return replace(seen, settings=replace(seen.settings, method=method))


def _joined(batches: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Batches one after the other; inputs without axes are the same in all."""
    return tuple(
        torch.cat(parts) if parts[0].dim() else parts[0] for parts in zip(*batches, strict=True)
    )
