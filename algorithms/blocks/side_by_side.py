"""A network and its changed copy run side by side, layer by layer: what each layer saw before, and what it sees now."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import fx, nn

AtConv = Callable[[str, torch.Tensor, torch.Tensor], None]


def run_side_by_side(
    graph: fx.Graph, reference: nn.Module, changed: nn.Module, pictures: torch.Tensor, at_conv: AtConv, *, correct: bool
) -> None:
    """Run both networks on pictures (p, c, h, w) and let `at_conv(name, x_reference, x_changed)` change a convolution before it runs.

    Pictures need not be natural: the reference normalises with the statistics of the batch, so that behind each batch norm every
    channel has the mean and deviation that the real one has, and what it adds is how channels and pixels go together. The changed
    network gets the same shift and scale. correct: move the changed batch norms' statistics by what the change did to them.
    """
    runs = tuple(fx.Interpreter(fx.GraphModule(model, graph)) for model in (reference, changed))
    for run in runs:
        run.args_iter = iter([pictures])
    first, second = runs
    for node in graph.nodes:
        module = first.fetch_attr(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.BatchNorm2d):
            inputs = [run.map_nodes_to_values(node.args, node)[0] for run in runs]
            first.env[node], second.env[node] = _normalise(module, second.fetch_attr(node.target), *inputs, correct)
        elif node.op != "output":
            if isinstance(module, nn.Conv2d):
                inputs = [run.map_nodes_to_values(node.args, node)[0] for run in runs]
                at_conv(str(node.target), *inputs)
            for run in runs:
                run.env[node] = run.run_node(node)
        for run in runs:
            for done in run.user_to_last_uses.get(node, []):
                del run.env[done]


def _normalise(
    old: nn.BatchNorm2d, new: nn.BatchNorm2d, before: torch.Tensor, after: torch.Tensor, correct: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both outputs. Without `correct` the changed layer keeps its statistics, and the change shows behind it."""
    assert old.running_mean is not None and old.running_var is not None
    assert new.running_mean is not None and new.running_var is not None
    variance, mean = torch.var_mean(before, (0, 2, 3), correction=0)
    scale = ((old.running_var + old.eps) / (variance + old.eps)).sqrt()
    shift = old.running_mean - mean * scale
    if correct:
        now, middle = torch.var_mean(after, (0, 2, 3), correction=0)
        new.running_mean.add_((middle - mean) * scale)
        new.running_var.copy_(((new.running_var + new.eps) * (now + new.eps) / (variance + new.eps) - new.eps).clamp(min=0))
    mapped = after * scale[:, None, None] + shift[:, None, None]
    return F.batch_norm(before, mean, variance, old.weight, old.bias, False, 0.0, old.eps), new(mapped)
