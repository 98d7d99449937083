"""A network and its changed copy run side by side, layer by layer, on pictures or without: what each layer saw and sees now."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from subpc.algorithms.batch_norm import move_statistics
from subpc.algorithms.field_run import run_fields
from subpc.algorithms.moments import AtLayer, AtNorm, sample_moments

# Places that the moments of a layer are taken from.
_PLACES = 20_000


def run_side_by_side(
    graph: fx.Graph,
    networks: tuple[nn.Module, nn.Module],
    pictures: torch.Tensor | None,
    at_layer: AtLayer,
    *,
    correct: bool,
    at_norm: AtNorm | None = None,
) -> None:
    """Follow the reference and the changed network and let `at_layer` change each layer of the second before it runs.

    pictures (p, c, h, w): normalised, and need not be natural: the reference normalises with the statistics of the batch, so that
    behind each batch norm every channel has the mean and deviation that the real one has, and what the pictures add is how channels
    and pixels go together. None: the same from weights and batch norms alone, see run_fields. correct: give the changed batch norms,
    and offsets where there is none, the statistics of the changed network.
    """
    if pictures is None:
        run_fields(graph, networks, at_layer, correct=correct, at_norm=at_norm)
    else:
        _Pictures(graph, networks, at_layer, at_norm, correct).run(pictures)


class _Pictures:
    """Both networks, interpreted node by node."""

    def __init__(
        self, graph: fx.Graph, networks: tuple[nn.Module, nn.Module], at_layer: AtLayer, at_norm: AtNorm | None, correct: bool
    ) -> None:
        self.graph, self.at_layer, self.at_norm, self.correct = graph, at_layer, at_norm, correct
        self.runs = tuple(fx.Interpreter(fx.GraphModule(network, graph)) for network in networks)

    def run(self, pictures: torch.Tensor) -> None:
        """All nodes but the last."""
        for run in self.runs:
            run.args_iter = iter([pictures])
        for node in self.graph.nodes:
            if node.op != "output":
                self._step(node)
            for run in self.runs:
                for done in run.user_to_last_uses.get(node, []):
                    del run.env[done]

    def _step(self, node: fx.Node) -> None:
        first, second = self.runs
        module = first.fetch_attr(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.BatchNorm2d):
            first.env[node], second.env[node] = self._normalise(node, module, second.fetch_attr(str(node.target)))
            return
        changed = second.fetch_attr(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            self._visit(node, module)
        for run in self.runs:
            run.env[node] = run.run_node(node)
        if isinstance(changed, nn.Conv2d | nn.Linear) and changed.bias is not None and self.correct and not _before_norm(node, first):
            self._move_offset(node, changed)

    def _visit(self, node: fx.Node, layer: nn.Module) -> None:
        source = node.all_input_nodes[0]
        first, second = self.runs
        kept = self.at_layer(str(node.target), lambda: sample_moments(layer, first.env[source], second.env[source], _PLACES))
        if kept is not None:
            self.runs[1].env[source] = self.runs[1].env[source][:, kept]

    def _move_offset(self, node: fx.Node, layer: nn.Module) -> None:
        """Add what the outputs lack in the mean."""
        before, now = (run.env[node] for run in self.runs)
        axes = (0, 2, 3) if before.dim() == 4 else tuple(range(before.dim() - 1))
        lacking = (before - now).mean(axes)
        layer.bias.add_(lacking)  # type: ignore[operator]
        self.runs[1].env[node] = now + (lacking[:, None, None] if before.dim() == 4 else lacking)

    def _normalise(self, node: fx.Node, old: nn.BatchNorm2d, new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Both outputs. Without `correct` the changed layer keeps its statistics, and the change shows behind it."""
        before, after = (run.env[node.all_input_nodes[0]] for run in self.runs)
        assert isinstance(old.running_mean, torch.Tensor) and isinstance(old.running_var, torch.Tensor)
        variance, mean = torch.var_mean(before, (0, 2, 3), correction=0)
        scale = ((old.running_var + old.eps) / (variance + old.eps)).sqrt()
        shift = old.running_mean - mean * scale
        if self.correct:
            now, middle = torch.var_mean(after, (0, 2, 3), correction=0)
            move_statistics(new, (middle - mean) * scale, (now + old.eps) / (variance + old.eps))
        if self.at_norm is not None:
            self.at_norm(str(node.target))
        mapped = after * scale[:, None, None] + shift[:, None, None]
        return F.batch_norm(before, mean, variance, old.weight, old.bias, False, 0.0, old.eps), new(mapped)


def _before_norm(node: fx.Node, run: fx.Interpreter) -> bool:
    """Whether a batch norm alone reads the node."""
    users = list(node.users)
    return len(users) == 1 and users[0].op == "call_module" and isinstance(run.fetch_attr(str(users[0].target)), nn.BatchNorm2d)
