"""A network and its changed copy run on images, node by node: on few images in front, where values
are large, on all behind."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import fx, nn

from subpc.algorithms.network.batch_norm import move_statistics
from subpc.algorithms.numerics.free_memory import give_back_memory
from subpc.algorithms.statistics.channel_statistics import Statistics, statistics_of
from subpc.algorithms.statistics.image_plan import plan_images
from subpc.algorithms.statistics.image_values import (
    ImageValues,
    Route,
    needed_for,
    readers_of_results,
)
from subpc.algorithms.statistics.moments import (
    AtLayer,
    AtNorm,
    KeptByNode,
    KeptOfLayer,
    Moments,
    sample_moments,
)

# Places that the moments of a layer are taken from.
_PLACES = 20_000
# Bytes of the largest value that is worked on at a time: what still fits the cache.
_PART = 2 << 20
# Bytes of what layers gave that both networks hold; what is beyond is worked out anew each time it
# is read.
HELD = 32 << 20
# Freed bytes that may stay with the process around a layer.
_MAY_STAY = 16 << 20
# Of the order of the images: the first ones have to be like all of them.
_SEED = 0

# The variance has it already; PyTorch 2.11 accepts no zero.
_NO_EPS = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class _Norm:
    """(c,) each: mean and variance that the reference normalises with, and what scales and moves
    its inputs to those of its training."""

    mean: torch.Tensor
    variance: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor


class ImageRun:
    """Both networks, followed node by node; see run_side_by_side.

    Values are not kept from node to node, but worked out a few images at a time for whoever reads
    them: the moments of a layer, the statistics of a batch norm. What convolutions gave is held, so
    that they run once, as far as there is room.
    """

    def __init__(
        self,
        graph: fx.Graph,
        networks: tuple[nn.Module, nn.Module],
        at_layer: AtLayer,
        at_norm: AtNorm | None,
        correct: bool,
        kept: Mapping[str, KeptOfLayer] | None = None,
    ) -> None:
        self.networks, self.kept = networks, kept or {}
        self.graph, self.written = readers_of_results(
            graph, dict(networks[0].named_modules(remove_duplicate=False))
        )
        self.nodes = [node for node in self.graph.nodes if node.op != "output"]
        self.place = {node: i for i, node in enumerate(self.graph.nodes)}
        self.at_layer, self.at_norm, self.correct = at_layer, at_norm, correct
        # Decided once a batch norm has been met; holds for the images that join later, too.
        self.norms: dict[fx.Node, _Norm] = {}
        self.known: dict[fx.Node, tuple[Statistics, ...]] = {}
        self.count = 0

    def run(self, images: torch.Tensor) -> None:
        """Follow all nodes but the last on images (p, c, h, w); those that join later go through
        the nodes before first."""
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SEED))
        self.values = tuple(
            ImageValues(network, self.graph, self.written, images, order)
            for network in self.networks
        )
        plan = plan_images(self.nodes, self.values[0].run, images[:1], len(images))
        self.sizes = plan.sizes
        for node in self.nodes:
            wanted = plan.at[node]
            if wanted >= 2 * self.count or wanted == len(images) > self.count:
                self._join(wanted)
            self._settle(node)
            self._hold(node)
            self._move_offset(node)

    def _join(self, wanted: int) -> None:
        """Hold what more images give, too."""
        held = tuple(self.values[0].held)
        if held:
            route = Route.to(held, {}, self.place)
            for values in self.values:
                self._fill(values, route, self._parts(route, self.count, wanted), wanted)
        self.count = wanted
        self.known.clear()

    def _parts(self, route: Route, first: int, last: int) -> list[slice]:
        """Images first to last, as many at a time as the route's largest value allows, but never
        one of several: some networks squeeze one image's values into another shape."""
        first = max(0, min(first, last - 2))
        passed = [*(node for node, _ in route.steps), *route.start]
        largest = max(1, *(self.sizes[node] for node in passed))
        together = max(2, _PART // largest)
        starts = [*range(first, max(last - 1, first + 1), together), last]
        return [slice(*ends) for ends in itertools.pairwise(starts)]

    def _fill(self, values: ImageValues, route: Route, parts: list[slice], count: int) -> None:
        """Hold the targets of the route for these images, beside what is held of them, `count` in
        all."""
        new: dict[fx.Node, torch.Tensor] = {}
        for part in parts:
            for node, value in values.some(route, part).items():
                if node not in new:
                    new[node] = value.new_empty(count, *value.shape[1:])
                    new[node][: part.start] = values.held.pop(node, value)[: part.start]
                new[node][part] = value
        values.held.update(new)

    def _hold(self, node: fx.Node) -> None:
        """Hold what a settled node gives, in place of more that it follows from, or where a layer
        would have to run again; drop what is not needed any more."""
        held = self.values[0].held
        without, beside = (self._alive(node, {*held, *more}) for more in ((), (node,)))
        fewer = self._bytes(beside) < self._bytes(without)
        route = Route.to([node], held, self.place)
        runs_layer = any(
            isinstance(self._module(step), nn.Conv2d | nn.Linear) for step, _ in route.steps
        )
        fits = runs_layer and 2 * self.count * self._bytes(beside) <= HELD
        if self.sizes[node] and node in beside and (fewer or fits):
            parts = self._parts(route, 0, self.count)
            for values in self.values:
                self._fill(values, route, parts, self.count)
            without = beside
        for values in self.values:
            values.held = {node: value for node, value in values.held.items() if node in without}

    def _alive(self, node: fx.Node, held: set[fx.Node]) -> set[fx.Node]:
        """Of what is held, what nodes behind this one still follow from."""
        here = self.place[node]
        read = [
            n for n in self.nodes[: here + 1] if any(self.place[user] > here for user in n.users)
        ]
        return needed_for(read, dict.fromkeys(held)) & held

    def _bytes(self, nodes: set[fx.Node]) -> int:
        return sum(self.sizes[node] for node in nodes)

    def _settle(self, node: fx.Node) -> None:
        """Have the changed network's layer or batch norm changed, given its inputs."""
        module = self._module(node)
        if isinstance(module, nn.BatchNorm2d):
            self._settle_norm(node, module)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            self._settle_layer(node, module)

    def _settle_layer(self, node: fx.Node, module: nn.Conv2d | nn.Linear) -> None:
        source = node.all_input_nodes[0]

        def moments() -> Moments | None:
            found = sample_moments(
                module,
                lambda: zip(*self._both(source), strict=True),
                self.count,
                _PLACES,
                self.kept.get(str(node.target)),
            )
            give_back_memory(_MAY_STAY)
            return found

        give_back_memory(_MAY_STAY)
        kept = self.at_layer(str(node.target), moments)
        give_back_memory(_MAY_STAY)
        if kept is not None:
            self._narrow(kept)

    def _both(self, node: fx.Node) -> tuple[Iterator[torch.Tensor], ...]:
        """What the node gives in each network, a few images at a time."""
        route = Route.to([node], self.values[0].held, self.place)
        parts = self._parts(route, 0, self.count)
        return tuple(values.parts(route, parts) for values in self.values)

    def _narrow(self, kept: KeptByNode) -> None:
        """The changed network has fewer channels in what these nodes give."""
        held = self.values[1].held
        for node in self.nodes:
            left = kept.get(node.name)
            if left is None:
                continue
            if node in held:
                held[node] = held[node][:, left]
            if node in self.norms:
                norm = self.norms[node]
                self.norms[node] = replace(norm, scale=norm.scale[left], shift=norm.shift[left])
        self.known.clear()

    def _settle_norm(self, node: fx.Node, old: nn.BatchNorm2d) -> None:
        """Without `correct` the changed layer keeps its statistics, and the change shows behind
        it."""
        (variance, mean), (now, middle) = self._statistics(node.all_input_nodes[0])
        assert old.running_mean is not None and old.running_var is not None
        scale = ((old.running_var + old.eps) / (variance + old.eps)).sqrt()
        shift = old.running_mean - mean * scale
        at = self._outputs_left(node)
        self.norms[node] = _Norm(mean=mean, variance=variance, scale=scale[at], shift=shift[at])
        if self.correct:
            new = self.values[1].run.fetch_attr(str(node.target))
            drift = (middle - mean[at]) * scale[at]
            move_statistics(new, drift, (now + old.eps) / (variance[at] + old.eps))
        for values, function in zip(self.values, (self._reference, self._changed), strict=True):
            values.functions[node] = partial(function, node)
        if self.at_norm is not None:
            self.at_norm(str(node.target))

    def _outputs_left(self, node: fx.Node) -> torch.Tensor | slice:
        """Which of the channels that the reference's layer gives the changed one gives, too."""
        kept = self.kept.get(str(node.target))
        return slice(None) if kept is None else kept.outputs

    def _statistics(self, node: fx.Node) -> tuple[Statistics, ...]:
        """Of what the node gives in each network. Those of joined channels are known from the
        joined, however often they are joined."""
        if node.target in (torch.cat, torch.concat) and node.kwargs.get("dim", node.args[-1]) == 1:
            joined = zip(*(self._known(source) for source in node.all_input_nodes), strict=True)
            return tuple(
                (torch.cat([x for x, _ in same]), torch.cat([x for _, x in same]))
                for same in joined
            )
        return tuple(statistics_of(parts) for parts in self._both(node))

    def _known(self, node: fx.Node) -> tuple[Statistics, ...]:
        """_statistics, looked for once, until images join."""
        if node not in self.known:
            self.known[node] = self._statistics(node)
        return self.known[node]

    def _reference(self, node: fx.Node, x: torch.Tensor) -> torch.Tensor:
        norm, old = self.norms[node], self._module(node)
        assert isinstance(old, nn.BatchNorm2d)
        return F.batch_norm(x, norm.mean, norm.variance, old.weight, old.bias, False, 0.0, old.eps)

    def _changed(self, node: fx.Node, x: torch.Tensor) -> torch.Tensor:
        norm, new = self.norms[node], self.values[1].module(node)
        assert isinstance(new, nn.BatchNorm2d)
        assert new.running_mean is not None and new.running_var is not None
        mean = (new.running_mean - norm.shift) / norm.scale
        variance = (new.running_var + new.eps) / norm.scale**2
        return F.batch_norm(x, mean, variance, new.weight, new.bias, False, 0.0, _NO_EPS)

    def _move_offset(self, node: fx.Node) -> None:
        """Add what the outputs of a layer lack in the mean, where no batch norm follows that would
        take it."""
        layer = self.values[1].module(node)
        if (
            not isinstance(layer, nn.Conv2d | nn.Linear)
            or layer.bias is None
            or not self.correct
            or self._before_norm(node)
        ):
            return
        (_, before), (_, now) = self._statistics(node)
        lacking = before[self._outputs_left(node)] - now
        layer.bias.add_(lacking)
        held = self.values[1].held
        if node in held:
            held[node].add_(lacking[:, None, None] if held[node].dim() == 4 else lacking)

    def _before_norm(self, node: fx.Node) -> bool:
        """Whether a batch norm alone reads the node."""
        return len(node.users) == 1 and isinstance(
            self._module(next(iter(node.users))), nn.BatchNorm2d
        )

    def _module(self, node: fx.Node) -> nn.Module | None:
        """The reference's module that the node calls."""
        return self.values[0].module(node)
