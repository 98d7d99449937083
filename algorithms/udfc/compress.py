"""UDFC over a network: front to back, remove channels and reconstruct them in the next layer, and
quantize."""

from collections import Counter
from dataclasses import replace

import torch
from torch import nn

from subpc.algorithms.config import with_feedback
from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.algorithms.images.random_images import GIVEN, inputs_for
from subpc.algorithms.layer_fit.fit_layer import (
    Rounding,
    problem_of,
    quantize_problem,
    zero_pays,
)
from subpc.algorithms.layer_fit.least_squares import Problem
from subpc.algorithms.network.checked_copy import (
    checked_copy,
    own_weights,
    reference_of,
    set_weight,
)
from subpc.algorithms.network.coded_weights import CodedWeights
from subpc.algorithms.network.coupling import Coupling, find_coupling
from subpc.algorithms.network.pairing import (
    Pairing,
    check_skip,
    find_pairs,
    layers_with_weights,
)
from subpc.algorithms.numerics.quantizers import Quantized, quantize_uniform
from subpc.algorithms.report import DataFreeReport
from subpc.algorithms.statistics.follow import run_side_by_side
from subpc.algorithms.statistics.moments import Inputs, KeptByNode
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.algorithms.udfc.pairwise import prune_pair, quantize_pairwise
from subpc.algorithms.udfc.plan_removal import RemovalPlan, Together, plan_removal
from subpc.algorithms.udfc.remove_channels import ChannelRemoval
from subpc.errors import ConfigError
from subpc.progress import Progress, silent

# Of a layer that is changed once, and not solved anew.
_USED_AGAIN = "used more than once"
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
        run.follow(reference_of(given, model), images, given=label == GIVEN)
    else:
        run.pair_by_pair()
    own_weights(model, given)
    if isinstance(model, GraphNetwork):
        model.take_groups()
    report = DataFreeReport.of("udfc", model, run.coded.codes, run.results, label)
    return model, run.coded.codes, replace(report, notes=run.notes())


def _decided(config: UdfcConfig, *, images: bool) -> UdfcConfig:
    """With what suits in the place of what is left open."""
    elsewhere = config.ridge_elsewhere
    if elsewhere is None:
        elsewhere = _RIDGE if images else config.ridge
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
        self.coded = CodedWeights(self.modules, self.pairing.graph)
        self.seen = {id(self.modules[name].weight) for name in config.skip if name in self.results}
        self.shared = {
            name for name, result in self.results.items() if _USED_AGAIN in result.reason
        }

    def follow(self, reference: nn.Module, images: torch.Tensor | None, *, given: bool) -> None:
        """Both networks side by side: channels that several layers have to make up for are chosen
        on a run before, the others at the layer that reads them."""
        coupling = find_coupling(self.pairing.graph, self.modules)
        shown = "given" if given else "random" if images is not None else "none"
        plan = self._plan(coupling, shown)
        self.removal = ChannelRemoval(coupling, self.coded, self.config, self.results)
        self.losing = {name for one in plan.together for name in one.deciding}
        self.at_reader = {one.deciding[0]: one for one in plan.together if not one.ahead}
        self._remove_ahead([one for one in plan.together if one.ahead], reference, images)
        networks, kept = (reference, self.modules[""]), self.removal.kept_of_layers()
        with self.coded.hidden(images is not None):
            run_side_by_side(
                self.pairing.graph, networks, images, self.at_layer, correct=True, kept=kept
            )

    def _plan(self, coupling: Coupling, images: str) -> RemovalPlan:
        if self.config.ratio == 0:
            return RemovalPlan(together=(), reasons={})
        plan = plan_removal(coupling, self.modules, self.config, images)
        for name, result in self.results.items():
            result.reason = plan.reasons.get(name, "")
        return plan

    def _remove_ahead(
        self, together: list[Together], reference: nn.Module, images: torch.Tensor | None
    ) -> None:
        """Remove channels whose readers are not all known when the first of them is solved: chosen
        where nothing is changed yet."""
        waiting = {name for one in together for name in one.deciding}
        problems: dict[str, Problem] = {}
        gone: list[torch.Tensor] = []

        def at_layer(name: str, inputs: Inputs) -> None:
            if name not in waiting:
                return
            self.progress(f"channels that {name} reads", len(problems), len(waiting))
            moments = inputs()
            assert moments is not None  # filters that are too long decide nothing
            problems[name] = problem_of(
                self.modules[name], moments, ridge=self.config.ridge, solve=False
            )
            waiting.remove(name)
            for one in together:
                if name in one.deciding and waiting.isdisjoint(one.deciding):
                    own = {reader: problems.pop(reader) for reader in one.deciding}
                    gone.append(self.removal.choose(one, own))
                    for reader, problem in own.items():
                        self.removal.solved(reader, problem, gone[-1])

        if together:
            run_side_by_side(
                self.pairing.graph, (reference, reference), images, at_layer, correct=False
            )
            self.removal.remove(torch.cat(gone))

    def pair_by_pair(self) -> None:
        """The paper's way, and the baselines."""
        for index, pair in enumerate(self.pairs):
            self.progress(pair.first, index, len(self.pairs))
            prune_pair(pair, self.modules, self.config, self.results[pair.first])
        if self.config.bits is not None:
            self.coded.codes = quantize_pairwise(
                self.modules, self.pairing, self.config, self.results, self.progress
            )

    def at_layer(self, name: str, inputs: Inputs) -> KeptByNode | None:
        """Take input channels from one layer, solve the others anew given its inputs, and
        quantize."""
        layer = self.modules[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if id(layer.weight) in self.seen:
            return None
        self.seen.add(id(layer.weight))
        self.progress(name, list(self.results).index(name), len(self.results))
        moments, kept, shared = inputs(), None, name in self.shared
        ridge = self.config.ridge if name in self.losing else self.config.ridge_elsewhere
        assert ridge is not None
        problem, measured = (
            problem_of(layer, moments, ridge=ridge, solve=not shared),
            moments is not None,
        )
        del moments  # as large as the layer, in float64
        if name in self.at_reader:
            gone = self.removal.choose(self.at_reader[name], {name: problem})
            problem, kept = self.removal.solved(name, problem, gone), self.removal.remove(gone)
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

    def notes(self) -> tuple[str, ...]:
        """What was asked for and has no effect on this network."""
        filters = [result for result in self.results.values() if result.filters > result.kept]
        if filters or self.config.ratio == 0:
            return ()
        reasons = Counter(r.reason for r in self.results.values() if r.reason)
        why = f": {reasons.most_common(1)[0][0]}, and the like" if reasons else ""
        return (f"ratio {self.config.ratio:g} removed no channel{why}",)
