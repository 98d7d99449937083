"""UDFC over a network: front to back, remove channels and reconstruct them in the next layer, and
quantize."""

from dataclasses import replace

import torch
from torch import nn

from subpc.algorithms.config import with_feedback
from subpc.algorithms.images.random_images import inputs_for
from subpc.algorithms.layer_fit.fit_layer import (
    Rounding,
    problem_of,
    quantize_problem,
    zero_pays,
)
from subpc.algorithms.layer_fit.least_squares import Problem, eliminate, solve
from subpc.algorithms.network.channels import keep_features, keep_inputs, keep_outputs
from subpc.algorithms.network.checked_copy import (
    checked_copy,
    own_weights,
    reference_of,
    set_weight,
)
from subpc.algorithms.network.coded_weights import CodedWeights
from subpc.algorithms.network.pairing import (
    LayerPair,
    Pairing,
    check_skip,
    find_pairs,
    layers_with_weights,
)
from subpc.algorithms.numerics.quantizers import Quantized, quantize_uniform
from subpc.algorithms.report import DataFreeReport
from subpc.algorithms.statistics.follow import run_side_by_side
from subpc.algorithms.statistics.moments import Inputs
from subpc.algorithms.udfc.choose_channels import choose_kept, count_kept
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.algorithms.udfc.pairwise import prune_pair, quantize_pairwise
from subpc.errors import ConfigError
from subpc.progress import Progress, silent

# Batches in which channels go, and the longest filter for which there is more than one: see
# eliminate.
_ROUNDS, _LONGEST = 16, 1_500
# Of layers that lose no inputs, measured on MobileNetV2 at 6 bits (docs/data_free.md).
_RIDGE = 1.0


@torch.no_grad()
def compress_udfc(
    model: nn.Module,
    config: UdfcConfig,
    progress: Progress = silent,
    *,
    images: torch.Tensor | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> tuple[nn.Module, dict[str, Quantized], DataFreeReport]:
    """The compressed copy, the codes of each quantized layer, and the report. `model` is not
    changed.

    images: normalised ones (p, c, h, w) to take statistics from; without them `config.inputs` says
    what is used instead.
    input_shape: (n, c, h, w) of the network, found by trying where it is left out.
    Raises UnsupportedModelError where the network cannot be traced or followed, ModelFileError for
    NaN weights or statistics, ConfigError where no channel would stay, and for images beside
    settings that look at weights alone.
    """
    if images is not None and not config.follows_network:
        raise ConfigError(
            "The settings look at weights alone, so images have no use.\nLeave them out, or choose"
            " method udfc, statistics network."
        )
    given, model = model, checked_copy(model)
    label = "none"
    if config.follows_network:
        images, label = inputs_for(model, config.inputs, images, input_shape, progress)
    run = _Run(model, _decided(config, images=images is not None), progress)
    if config.follows_network:
        reference = reference_of(given, model)
        with run.coded.hidden(images is not None):
            run_side_by_side(
                run.pairing.graph, (reference, model), images, run.at_layer, correct=True
            )
    else:
        run.pair_by_pair()
    own_weights(model, given)
    return (
        model,
        run.coded.codes,
        DataFreeReport.of("udfc", model, run.coded.codes, run.results, label),
    )


def _decided(config: UdfcConfig, *, images: bool) -> UdfcConfig:
    """With what suits in the place of what is left open."""
    elsewhere = config.ridge_elsewhere
    if elsewhere is None and images:
        elsewhere = _RIDGE
    feedback = with_feedback(config.feedback, config.scales, images=images)
    return replace(config, feedback=feedback, ridge_elsewhere=elsewhere)


class _Run:
    """One compression."""

    def __init__(self, model: nn.Module, config: UdfcConfig, progress: Progress) -> None:
        self.config, self.progress, self.modules = config, progress, dict(model.named_modules())
        self.pairing: Pairing = find_pairs(model)
        check_skip(config.skip, self.modules)
        self.results = layers_with_weights(self.modules, self.pairing)
        self.pairs = [
            p
            for p in self.pairing.pairs
            if config.ratio > 0 and not {p.first, p.second} & set(config.skip)
        ]
        self.by_second = {pair.second: pair for pair in self.pairs}
        self.coded = CodedWeights(self.modules, self.pairing.graph)
        self.seen = {id(self.modules[name].weight) for name in config.skip if name in self.results}

    def pair_by_pair(self) -> None:
        """The paper's way, and the baselines."""
        for index, pair in enumerate(self.pairs):
            self.progress(pair.first, index, len(self.pairs))
            prune_pair(pair, self.modules, self.config, self.results[pair.first])
        if self.config.bits is not None:
            self.coded.codes = quantize_pairwise(
                self.modules, self.pairing, self.config, self.results, self.progress
            )

    def at_layer(self, name: str, inputs: Inputs) -> torch.Tensor | None:
        """Take input channels from one layer, solve the others anew given its inputs, and
        quantize."""
        layer = self.modules[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if id(layer.weight) in self.seen:
            return None
        self.seen.add(id(layer.weight))
        self.progress(name, list(self.results).index(name), len(self.results))
        moments, kept, shared = inputs(), None, "used more than once" in self.results[name].reason
        ridge = self.config.ridge
        if name not in self.by_second and self.config.ridge_elsewhere is not None:
            ridge = self.config.ridge_elsewhere
        problem, measured = (
            problem_of(layer, moments, ridge=ridge, solve=not shared),
            moments is not None,
        )
        del moments  # as large as the layer, in float64
        if name in self.by_second and measured:
            problem, kept = self._remove(self.by_second[name], problem)
        self._write(name, layer, problem, feedback=not shared and measured)
        return kept

    def _write(
        self, name: str, layer: nn.Conv2d | nn.Linear, problem: Problem, *, feedback: bool
    ) -> None:
        """Give the layer its solved weights, quantized where bits are set."""
        if self.config.bits is None:
            set_weight(layer, problem.weights().view_as(layer.weight).float())
            return
        how = Rounding(
            bits=self.config.bits,
            has_zero=zero_pays(layer, self.config.bits),
            per_channel=self.config.per_channel,
            feedback=feedback and bool(self.config.feedback),
        )
        if self.config.scales == "search":
            codes = quantize_problem(problem, layer.weight.shape, how)
        else:
            best = problem.weights().view_as(layer.weight).float()
            codes = quantize_uniform(best, how.bits, per_channel=how.per_channel)
        self.results[name].bits = how.bits
        self.coded.set(name, codes)

    def _remove(self, pair: LayerPair, problem: Problem) -> tuple[Problem, torch.Tensor]:
        """Take the channels between the pair's layers that the others replace best, or the smallest
        filters."""
        first, norm, second = (self.modules[name] for name in (pair.first, pair.norm, pair.second))
        assert (
            isinstance(first, nn.Conv2d)
            and isinstance(norm, nn.BatchNorm2d)
            and isinstance(second, nn.Conv2d)
        )
        self.coded.keep_shown(pair.first)
        kept = self._choose(first, problem)
        columns = kept.repeat_interleave(problem.best.shape[2] // len(kept))
        result = self.results[pair.first]
        result.error_before = problem.relative_error(problem.best * columns)
        mask, n = problem.kept or (torch.ones_like(kept)[None], second.out_channels)
        solved = solve(problem, mask & kept, n)
        result.error_after = problem.relative_error(solved[None])
        result.coefficients, result.kept = (
            (float(solved.min()), float(solved.max())),
            int(kept.sum()),
        )
        keep_outputs(first, kept)
        keep_features(norm, kept)
        keep_inputs(second, kept)
        if pair.first in self.coded.codes:
            self.coded.set(pair.first, self.coded.codes[pair.first].keep(kept))
        left = Problem(
            best=solved[None, :, columns],
            curvature=problem.curvature[:, columns][:, :, columns],
            taps=problem.taps,
            kept=problem.kept and (mask[:, kept], n),
        )
        return left, kept

    def _choose(self, first: nn.Conv2d, problem: Problem) -> torch.Tensor:
        if self.config.criterion != "error":
            return choose_kept(
                first.weight.double().flatten(1), self.config.ratio, self.config.criterion
            )
        channels = first.out_channels
        count = channels - count_kept(channels, self.config.ratio)
        rounds = _ROUNDS if problem.best.shape[2] <= _LONGEST else 1
        return eliminate(problem, channels, problem.best.shape[1] // problem.taps, count, rounds)[0]
