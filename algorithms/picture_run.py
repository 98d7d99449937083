"""A network and its changed copy run on pictures, node by node: on few pictures in front, where values are large, on all behind."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils import _pytree as pytree

from subpc.algorithms.batch_norm import move_statistics
from subpc.algorithms.free_memory import give_back_memory
from subpc.algorithms.moments import AtLayer, AtNorm, Moments, sample_moments
from subpc.algorithms.picture_counts import Counts, count_pictures

# Places that the moments of a layer are taken from.
_PLACES = 20_000
# Pictures that are normalised at a time, so that the steps of it stay in the cache.
_AT_ONCE = 4
# Freed bytes that may stay with the process in front of a layer, and of one of at least so many weights, whose own work takes much.
_MAY_STAY, _WIDE_MAY_STAY, _WIDE = 128 << 20, 16 << 20, 1 << 19
# Of the order of the pictures: the first ones have to be like all of them.
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Norm:
    """(c,) each: mean and variance that the reference normalises with, and what brings its inputs to those that it was trained with."""

    mean: torch.Tensor
    variance: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor


class PictureRun:
    """Both networks, interpreted node by node; see run_side_by_side."""

    def __init__(
        self, graph: fx.Graph, networks: tuple[nn.Module, nn.Module], at_layer: AtLayer, at_norm: AtNorm | None, correct: bool
    ) -> None:
        self.nodes = [node for node in graph.nodes if node.op != "output"]
        self.at_layer, self.at_norm, self.correct = at_layer, at_norm, correct
        self.runs = tuple(fx.Interpreter(fx.GraphModule(network, graph)) for network in networks)
        # Settled once a batch norm has been met; holds for the pictures that join later, too.
        self.norms: dict[fx.Node, _Norm] = {}

    def run(self, pictures: torch.Tensor) -> None:
        """All nodes but the last, each on as many pictures as there is room for; the pictures that join have been through the nodes
        before, as they are settled."""
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(_SEED))
        counts = count_pictures(self.nodes, self.runs[0], pictures[:1], len(pictures))
        running = counts.at[self.nodes[0]]
        self._start(pictures[order[:running]])
        for index, node in enumerate(self.nodes):
            wanted = counts.at[node]
            if wanted >= 2 * running or wanted == len(pictures) > running:
                kinds = self._kinds(counts, running)
                if None not in kinds.values():
                    self._join(self.nodes[:index], kinds, (pictures[few] for few in torch.split(order[running:wanted], counts.together)))
                    running = wanted
            self._settle(node)
            self._advance(node)
            self._move_offset(node)

    def _start(self, pictures: torch.Tensor) -> None:
        for run in self.runs:
            run.args_iter = iter([pictures])

    def _kinds(self, counts: Counts, running: int) -> dict[fx.Node, str | None]:
        return {node: _kind(value, counts.samples[node], running) for node, value in self.runs[0].env.items()}

    def _join(self, nodes: list[fx.Node], kinds: dict[fx.Node, str | None], pictures: Iterable[torch.Tensor]) -> None:
        """Take more pictures through `nodes`, a few at a time, and put what they give beside what is alive."""
        parts: list[list[dict[fx.Node, Any]]] = [[dict(run.env)] for run in self.runs]
        for some in pictures:
            for run in self.runs:
                run.env.clear()
            self._start(some)
            for node in nodes:
                self._advance(node)
            for run, found in zip(self.runs, parts, strict=True):
                found.append(dict(run.env))
        for run, found in zip(self.runs, parts, strict=True):
            for node, kind in kinds.items():
                values = [part.pop(node) for part in found]
                run.env[node] = _joined(values) if kind == "each" else values[0]

    def _settle(self, node: fx.Node) -> None:
        """Have the changed network's layer or batch norm changed, for what it sees."""
        module = self._module(node)
        if isinstance(module, nn.BatchNorm2d):
            self._settle_norm(node, module)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            self._settle_layer(node, module)

    def _settle_layer(self, node: fx.Node, module: nn.Conv2d | nn.Linear) -> None:
        may_stay, source = _MAY_STAY if module.weight.numel() < _WIDE else _WIDE_MAY_STAY, node.all_input_nodes[0]

        def moments() -> Moments | None:
            before, now = (run.env[source] for run in self.runs)
            found = sample_moments(module, before, now, _PLACES)
            give_back_memory(may_stay)
            return found

        give_back_memory(may_stay)
        kept = self.at_layer(str(node.target), moments)
        give_back_memory(may_stay)
        if kept is not None:
            self._narrow(source, kept)

    def _narrow(self, source: fx.Node, kept: torch.Tensor) -> None:
        """The changed network has these channels alone from the batch norm in front of `source` on."""
        self.runs[1].env[source] = self.runs[1].env[source][:, kept]
        while source not in self.norms:
            source = source.all_input_nodes[0]
        norm = self.norms[source]
        self.norms[source] = replace(norm, scale=norm.scale[kept], shift=norm.shift[kept])

    def _settle_norm(self, node: fx.Node, old: nn.BatchNorm2d) -> None:
        """Without `correct` the changed layer keeps its statistics, and the change shows behind it."""
        before, after = (run.env[node.all_input_nodes[0]] for run in self.runs)
        assert isinstance(old.running_mean, torch.Tensor) and isinstance(old.running_var, torch.Tensor)
        variance, mean = torch.var_mean(before, (0, 2, 3), correction=0)
        scale = ((old.running_var + old.eps) / (variance + old.eps)).sqrt()
        self.norms[node] = _Norm(mean=mean, variance=variance, scale=scale, shift=old.running_mean - mean * scale)
        if self.correct:
            now, middle = torch.var_mean(after, (0, 2, 3), correction=0)
            new = self.runs[1].fetch_attr(str(node.target))
            move_statistics(new, (middle - mean) * scale, (now + old.eps) / (variance + old.eps))
        if self.at_norm is not None:
            self.at_norm(str(node.target))

    def _advance(self, node: fx.Node) -> None:
        """Run a settled node in both networks; what is read no more goes before the second runs."""
        for run, function in zip(self.runs, self._functions(node), strict=True):
            run.env[node] = function(run)
            for done in run.user_to_last_uses.get(node, []):
                del run.env[done]

    def _functions(self, node: fx.Node) -> tuple[Callable[[fx.Interpreter], Any], ...]:
        """What gives the node's value in each network."""
        if node not in self.norms:
            return (lambda run: run.run_node(node),) * 2
        norm, old, new = self.norms[node], *(run.fetch_attr(str(node.target)) for run in self.runs)

        def reference(x: torch.Tensor) -> torch.Tensor:
            return F.batch_norm(x, norm.mean, norm.variance, old.weight, old.bias, False, 0.0, old.eps)

        def changed(x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = new(x * norm.scale[:, None, None] + norm.shift[:, None, None])
            return result

        return tuple(lambda run, f=f: self._normalised(node, run, f) for f in (reference, changed))

    def _normalised(self, node: fx.Node, run: fx.Interpreter, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        source = node.all_input_nodes[0]
        x: torch.Tensor = run.env[source]
        result = x if self._is_fresh(source) else torch.empty_like(x)
        for part, place in zip(x.split(_AT_ONCE), result.split(_AT_ONCE), strict=True):  # type: ignore[no-untyped-call]
            place.copy_(function(part))
        return result

    def _is_fresh(self, node: fx.Node) -> bool:
        """Whether one node alone reads the value, which shares no memory with another."""
        return len(node.users) == 1 and (isinstance(self._module(node), nn.Conv2d) or node.target in (torch.cat, torch.concat))

    def _move_offset(self, node: fx.Node) -> None:
        """Add what the outputs of a layer lack in the mean, where no batch norm follows that would take it."""
        layer = self.runs[1].fetch_attr(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, nn.Conv2d | nn.Linear) or layer.bias is None or not self.correct or self._before_norm(node):
            return
        before, now = (run.env[node] for run in self.runs)
        axes = (0, 2, 3) if before.dim() == 4 else tuple(range(before.dim() - 1))
        lacking = (before - now).mean(axes)
        layer.bias.add_(lacking)
        self.runs[1].env[node] = now + (lacking[:, None, None] if before.dim() == 4 else lacking)

    def _before_norm(self, node: fx.Node) -> bool:
        """Whether a batch norm alone reads the node."""
        return len(node.users) == 1 and isinstance(self._module(next(iter(node.users))), nn.BatchNorm2d)

    def _module(self, node: fx.Node) -> nn.Module | None:
        """The reference's module that the node calls."""
        module = self.runs[0].fetch_attr(str(node.target)) if node.op == "call_module" else None
        assert module is None or isinstance(module, nn.Module)
        return module


def _kind(value: Any, sample: Any, pictures: int) -> str | None:
    """`each`: a row for each picture; `all`: one value, whatever their number; None: neither. sample: the value for one picture."""
    both = list(zip(pytree.tree_leaves(value), pytree.tree_leaves(sample), strict=True))
    if all(x.shape == one.shape if isinstance(x, torch.Tensor) else x == one for x, one in both):
        return "all"
    tensors = all(isinstance(x, torch.Tensor) for x, _ in both)
    return "each" if tensors and all(one.shape[:1] == (1,) and x.shape == (pictures, *one.shape[1:]) for x, one in both) else None


def _joined(parts: list[Any]) -> Any:
    """One value whose tensors have the rows of all parts."""
    leaves = zip(*map(pytree.tree_leaves, parts), strict=True)
    return pytree.tree_unflatten([torch.cat(same) for same in leaves], pytree.tree_structure(parts[0]))
