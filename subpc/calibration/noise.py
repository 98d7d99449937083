"""How far roundings move the results of a network, and which layers may be rounded."""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from subpc.calibration.interpret import Interpreter
from subpc.calibration.observe import in_batches
from subpc.calibration.quantize import Calibrated
from subpc.passes.dataflow import shape_of

# Results may move by so much: the noise is at least so many dB below the signal. docs/integers.md
# says what that was chosen by.
BOUND = 20.0
# About so many of the inputs that ranges were measured on tell.
SAMPLES = 4


class Noise:
    """Results of a calibrated network with some layers rounded, against those without."""

    def __init__(self, calibrated: Calibrated) -> None:
        self._calibrated = calibrated
        self._batches = _some(calibrated)
        self._expected = self._results(Interpreter(calibrated.network.module))

    @property
    def samples(self) -> int:
        """How many inputs tell."""
        return sum(max((len(x) for x in batch if x.dim()), default=1) for batch in self._batches)

    def below_signal(self, layers: Collection[str]) -> float:
        """dB that the noise lies below the signal with these layers in codes: of the output where
        that is least."""
        if not layers:
            return math.inf
        rounded = Interpreter(self._calibrated.rounded(lambda name: name in layers))
        pairs = zip(self._results(rounded), self._expected, strict=True)
        return min((decibels(found, expected) for found, expected in pairs), default=math.inf)

    def _results(self, interpreter: Interpreter) -> list[Tensor]:
        runs = [interpreter.run(*batch) for batch in self._batches]
        return [torch.cat([x.flatten() for x in one]) for one in zip(*runs, strict=True)]


def decibels(found: Tensor, expected: Tensor) -> float:
    """Power of the signal over that of what is different; of numbers that are no floats, one over
    the share that is different. -inf where either is not finite or there is no signal."""
    if not expected.is_floating_point():
        signal, noise = 1.0, float((found != expected).double().mean())
    else:
        signal = float((expected.double() - expected.double().mean()).square().sum())
        noise = float((found.double() - expected.double()).square().sum())
    if noise == 0:
        return math.inf
    if not (math.isfinite(noise) and math.isfinite(signal)) or signal == 0:
        return -math.inf
    return 10 * math.log10(signal / noise)


def quiet_layers(noise: Noise, layers: Sequence[str], alone: dict[str, float]) -> list[str]:
    """Layers that may be in codes together, without the noisiest ones, of which few are left out.

    alone: for what each of the layers does, is filled here. Noises of layers add up, nearly: from
    there on the number left out is halved, or the rest of it, until one less would be too few.
    """
    for name in layers:
        alone[name] = noise.below_signal([name])
    order = sorted(layers, key=lambda name: alone[name])
    powers = [10 ** (-alone[name] / 10) for name in order]
    allowed = 10 ** (-BOUND / 10)
    guess = next(k for k in range(len(order) + 1) if sum(powers[k:]) <= allowed)
    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = guess if too_few < guess < enough else (too_few + enough) // 2
        if noise.below_signal(order[middle:]) >= BOUND:
            enough = middle
        else:
            too_few = middle
    return order[enough:]


def _some(calibrated: Calibrated) -> list[tuple[Tensor, ...]]:
    """Inputs from everywhere among those of the calibration, as batches of the network."""
    graph = calibrated.network.graph
    batches = in_batches(graph, calibrated.inputs, 1)
    extents = [shape_of(var)[0] for var in graph.inputs if shape_of(var) and shape_of(var)[0]]
    count = max(1, SAMPLES // max(extents, default=1))
    step = max(1, len(batches) // count)
    return batches[::step][:count]
