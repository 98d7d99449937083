"""DF-MPC over a network: low precision for the first layer of each pair, and what that costs made
good behind it."""

from collections import Counter
from dataclasses import replace

import torch
from torch import nn

from subpc.algorithms.config import with_feedback
from subpc.algorithms.dfmpc.choose_pairs import choose_pairs
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.dfmpc.scalar_compensation import Scalar, quantize, relative_error
from subpc.algorithms.images.random_images import inputs_for
from subpc.algorithms.layer_fit.fit_layer import (
    Rounding,
    problem_of,
    quantize_problem,
    zero_pays,
)
from subpc.algorithms.network.checked_copy import checked_copy, own_weights, reference_of
from subpc.algorithms.network.coded_weights import CodedWeights
from subpc.algorithms.network.pairing import Pairing, check_skip, find_pairs, layers_with_weights
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.algorithms.report import DataFreeReport
from subpc.algorithms.statistics.follow import run_side_by_side
from subpc.algorithms.statistics.moments import Inputs
from subpc.errors import ConfigError
from subpc.progress import Progress, silent


@torch.no_grad()
def compress_dfmpc(
    model: nn.Module,
    config: DfmpcConfig,
    progress: Progress = silent,
    *,
    images: torch.Tensor | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> tuple[nn.Module, dict[str, Quantized], DataFreeReport]:
    """The quantized copy, the codes of each layer, and the report. `model` is not changed.

    images: normalised ones (p, c, h, w) to take statistics from; without them `config.inputs` says
    what is used instead.
    input_shape: (n, c, h, w) of the network, found by trying where it is left out.
    Raises UnsupportedModelError where the network cannot be traced or followed, ModelFileError for
    NaN weights or statistics, ConfigError for unknown names in skip, and for images beside settings
    that look at weights alone.
    """
    if images is not None and not config.follows_network:
        raise ConfigError(
            "The settings look at weights alone, so images have no use.\nLeave them out, or choose"
            " recalibration network."
        )
    given, model = model, checked_copy(model)
    label = "none"
    if config.follows_network:
        images, label = inputs_for(model, config.inputs, images, input_shape, progress)
    feedback = with_feedback(config.feedback, config.scales, images=images is not None)
    run = _Run(model, replace(config, feedback=feedback), progress)
    if config.follows_network:
        reference = reference_of(given, model)
        correct = config.recalibration == "network"
        with run.coded.hidden(images is not None):
            run_side_by_side(
                run.pairing.graph,
                (reference, model),
                images,
                run.at_layer,
                correct=correct,
                at_norm=run.at_norm,
            )
    run.rest()
    own_weights(model, given)
    report = DataFreeReport.of("dfmpc", model, run.coded.codes, run.results, label)
    return model, run.coded.codes, replace(report, notes=run.notes())


class _Run:
    """One compression: layers are quantized in the order of the graph."""

    def __init__(self, model: nn.Module, config: DfmpcConfig, progress: Progress) -> None:
        self.config, self.progress, self.modules = config, progress, dict(model.named_modules())
        self.pairing: Pairing = find_pairs(model)
        check_skip(config.skip, self.modules)
        self.results = layers_with_weights(self.modules, self.pairing)
        pairs = tuple(p for p in self.pairing.pairs if not {p.first, p.second} & set(config.skip))
        self.low = {pair.first: pair for pair in choose_pairs(pairs, self.modules)}
        self.scalar = Scalar(self.modules, config, tuple(self.low.values()), self.results)
        self.coded = CodedWeights(self.modules, self.pairing.graph)
        self.seen = {id(self.modules[name].weight) for name in config.skip if name in self.results}

    def at_layer(self, name: str, inputs: Inputs) -> None:
        """Quantize one layer given its inputs."""
        layer, result = self.modules[name], self.results[name]
        if not self._is_next(name):
            return
        codes = self._codes(name, layer, inputs)
        result.error_before = relative_error(
            layer.weight, quantize(layer.weight, result.bits, per_channel=False)
        )
        result.error_after = relative_error(layer.weight, codes)
        self.scalar.before(name)
        self.coded.set(name, codes)

    def at_norm(self, name: str) -> None:
        """Compensate for the low layer in front of the batch norm `name`, if there is one."""
        if name in self.scalar.by_norm:
            with self.coded.shown(self.scalar.by_norm[name].first):
                self.scalar.at_norm(name)

    def _codes(self, name: str, layer: nn.Conv2d | nn.Linear, inputs: Inputs) -> Quantized:
        shared, config, bits = (
            "used more than once" in self.results[name].reason,
            self.config,
            self.results[name].bits,
        )
        solves = config.compensation == "solve"
        if config.scales == "paper" and not solves:
            return quantize(layer.weight, bits, per_channel=config.per_channel)
        problem = problem_of(layer, inputs(), ridge=config.ridge, solve=solves and not shared)
        if config.scales == "paper":
            return quantize(
                problem.weights().view_as(layer.weight), bits, per_channel=config.per_channel
            )
        feedback = bool(config.feedback) and not shared
        how = Rounding(
            bits=bits,
            has_zero=bits == 2 or zero_pays(layer, bits),
            per_channel=config.per_channel,
            feedback=feedback,
        )
        return quantize_problem(problem, layer.weight.shape, how)

    def rest(self) -> None:
        """Quantize the layers that were not reached: all of it where the settings look at weights
        alone."""
        for name, result in self.results.items():
            layer = self.modules[name]
            if not self._is_next(name):
                continue
            codes = quantize(layer.weight, result.bits, per_channel=self.config.per_channel)
            result.error_before = result.error_after = relative_error(layer.weight, codes)
            self.scalar.before(name)
            if name in self.low:
                self.scalar.recalibrate(name, codes.dequantize())
            self.coded.set(name, codes)
            if name in self.low:
                self.scalar.at_norm(self.low[name].norm)

    def _is_next(self, name: str) -> bool:
        weight = self.modules[name].weight
        if id(weight) in self.seen:
            return False
        self.progress(name, list(self.results).index(name), len(self.results))
        self.seen.add(id(weight))
        self.results[name].bits = (
            self.config.low_bits if name in self.low else self.config.high_bits
        )
        return True

    def notes(self) -> tuple[str, ...]:
        """What was asked for and has no effect on this network."""
        low, high = self.config.low_bits, self.config.high_bits
        if self.low or low == high:
            return ()
        reasons = Counter(self.pairing.left_alone.values()).most_common(1)
        why = f": {reasons[0][0]}, and the like" if reasons else ""
        return (f"no layer got {low} bits, all have {high}{why}",)
