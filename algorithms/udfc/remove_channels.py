"""Removing coupled channels from a network: choose them, and make every layer narrower that has
them."""

from collections.abc import Mapping

import torch
from torch import nn

from subpc.algorithms.layer_fit.least_squares import Problem, solve
from subpc.algorithms.network.channels import keep_features, keep_inputs, keep_outputs
from subpc.algorithms.network.coded_weights import CodedWeights
from subpc.algorithms.network.coupling import Coupling, Group
from subpc.algorithms.report import LayerResult
from subpc.algorithms.statistics.moments import KeptByNode, KeptOfLayer
from subpc.algorithms.udfc.choose_channels import filter_norms
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.algorithms.udfc.eliminate_together import eliminate_together, readings_of
from subpc.algorithms.udfc.plan_removal import Together, count_of_part


class ChannelRemoval:
    """Which channels of a network are left, by their numbers in its coupling, and the network,
    which is narrowed as they go."""

    def __init__(
        self,
        coupling: Coupling,
        coded: CodedWeights,
        config: UdfcConfig,
        results: Mapping[str, LayerResult],
    ) -> None:
        self.coupling, self.coded, self.config, self.results = coupling, coded, config, results
        self.alive = torch.ones(coupling.total, dtype=torch.bool)

    def inputs_left(self, name: str) -> torch.Tensor:
        """Numbers of the channels that the layer reads now."""
        numbers = self.coupling.inputs[name]
        return numbers[self.alive[numbers]]

    def choose(self, together: Together, problems: Mapping[str, Problem]) -> torch.Tensor:
        """Numbers of the channels that go, given the problems of the deciding layers with all of
        these channels."""
        numbers, parts, counts = _candidates(together.groups, self.config.ratio)
        if self.config.criterion != "error":
            kept = self._largest(together.groups, numbers, parts, counts)
        else:
            place = torch.full_like(self.alive, -1, dtype=torch.long)
            place[numbers] = torch.arange(len(numbers))
            readings = [
                reading
                for name, problem in problems.items()
                for reading in readings_of(problem, place[self.inputs_left(name)])
            ]
            kept = eliminate_together(readings, parts, counts)
        return numbers[~kept]

    def _largest(
        self,
        groups: tuple[Group, ...],
        numbers: torch.Tensor,
        parts: torch.Tensor,
        counts: list[int],
    ) -> torch.Tensor:
        """Mask (candidates,) of those that the largest filters write, all writers together."""
        sizes = torch.zeros(len(self.alive), dtype=torch.float64)
        for name in {name: None for group in groups for name in group.writers}:
            with self.coded.shown(name):
                norms = filter_norms(self._layer(name).weight, self.config.criterion)
            sizes.index_add_(0, self.coupling.outputs[name], norms)
        kept = torch.ones(len(numbers), dtype=torch.bool)
        for part, count in enumerate(counts):
            own = (parts == part).nonzero()[:, 0]
            order = sizes[numbers[own]].argsort(descending=True, stable=True)
            kept[own[order[len(own) - count :]]] = False
        return kept

    def solved(self, name: str, problem: Problem, gone: torch.Tensor) -> Problem:
        """The layer's problem without these channels, whose best weights make up for them; its
        errors before and after are those of the layers that wrote them."""
        left = ~torch.isin(self.inputs_left(name), gone)
        groups = len(problem.best)
        kept = left.view(groups, -1)
        width = problem.best.shape[2] // kept.shape[1]
        columns = kept.repeat_interleave(width, 1)
        before = problem.relative_error(problem.best * columns[:, None])
        mask, n = problem.kept or (torch.ones(1, kept.shape[1], dtype=torch.bool), 0)
        n = n or problem.best.shape[1] // problem.taps
        best = torch.stack(
            [solve(_one_group(problem, group), mask & kept[group], n) for group in range(groups)]
        )
        self._note(gone, before, problem.relative_error(best), best)
        return Problem(
            best=torch.stack([b[:, c] for b, c in zip(best, columns, strict=True)]),
            curvature=torch.stack(
                [a[c][:, c] for a, c in zip(problem.curvature, columns, strict=True)]
            ),
            taps=problem.taps,
            kept=problem.kept and (mask[:, kept[0]], n),
        )

    def _note(self, gone: torch.Tensor, before: float, after: float, best: torch.Tensor) -> None:
        for name, result in self.results.items():
            numbers = self.coupling.outputs.get(name)
            if numbers is not None and bool(torch.isin(numbers, gone).any()):
                result.error_before = max(result.error_before, before)
                result.error_after = max(result.error_after, after)
                result.coefficients = (float(best.min()), float(best.max()))

    def remove(self, gone: torch.Tensor) -> KeptByNode:
        """Narrow all layers that have these channels; tells what is left of what nodes give."""
        before = self.alive.clone()
        self.alive[gone] = False
        for name in self.coupling.outputs:
            sides = (self.coupling.inputs[name], self.coupling.outputs[name])
            kept = [self.alive[numbers[before[numbers]]] for numbers in sides]
            if not all(bool(side.all()) for side in kept):
                self._narrow(name, *kept)
        found = {
            node: self.alive[numbers[before[numbers]]]
            for node, numbers in self.coupling.nodes.items()
        }
        return {node: kept for node, kept in found.items() if not bool(kept.all())}

    def _narrow(self, name: str, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        layer = self.coded.modules[name]
        if isinstance(layer, nn.BatchNorm2d):
            keep_features(layer, outputs)
            return
        self.coded.keep_shown(name)
        layer = self._layer(name)
        if not bool(inputs.all()):
            keep_inputs(layer, inputs)
        if not bool(outputs.all()):
            keep_outputs(layer, outputs)
            self.results[name].kept = int(outputs.sum())
            if name in self.coded.codes:
                self.coded.set(name, self.coded.codes[name].keep(outputs))

    def kept_of_layers(self) -> dict[str, KeptOfLayer]:
        """What is left of the layers that have lost channels."""
        found = {
            name: KeptOfLayer(
                inputs=self.alive[self.coupling.inputs[name]], outputs=self.alive[numbers]
            )
            for name, numbers in self.coupling.outputs.items()
        }
        return {
            name: kept
            for name, kept in found.items()
            if not bool(kept.inputs.all() and kept.outputs.all())
        }

    def _layer(self, name: str) -> nn.Conv2d | nn.Linear:
        layer = self.coded.modules[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        return layer


def _candidates(
    groups: tuple[Group, ...], ratio: float
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Numbers of all channels that compete, which part of a group each is in, and how many of each
    part go."""
    parts: list[torch.Tensor] = []
    counts: list[int] = []
    for group in groups:
        size = len(group.numbers) // group.parts
        parts.append(len(counts) + torch.arange(len(group.numbers)) // size)
        counts += [size - count_of_part(group, ratio)] * group.parts
    return torch.cat([group.numbers for group in groups]), torch.cat(parts), counts


def _one_group(problem: Problem, group: int) -> Problem:
    at = slice(group, group + 1)
    return Problem(best=problem.best[at], curvature=problem.curvature[at], taps=problem.taps)
