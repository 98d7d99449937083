"""Which convolutions lose blocks, and why the others stay dense."""

from collections import Counter

from torch import fx, nn

from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.network.keep_dense import dense_reasons
from subpc.algorithms.numerics.one_by_n import pruned_count
from subpc.algorithms.report import LayerResult


def sort_layers(
    graph: fx.Graph, modules: dict[str, nn.Module], config: BlockConfig
) -> dict[str, LayerResult]:
    """A result for each layer with weights, in the order of the graph; those with a reason stay
    dense."""
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    uses = Counter(id(getattr(modules[name], "weight", modules[name])) for name in calls)
    convs = {name: module for name in calls if isinstance(module := modules[name], nn.Conv2d)}
    reasons = dense_reasons(convs, config.keep_dense, config.n)
    results: dict[str, LayerResult] = {}
    for name in dict.fromkeys(calls):
        module = modules[name]
        if isinstance(module, nn.Conv2d | nn.Linear):
            reason = (
                _reason(module, reasons[name], uses[id(module.weight)], config)
                if name in convs
                else "fully connected"
            )
            filters = module.weight.shape[0]
            results[name] = LayerResult(name=name, filters=filters, kept=filters, reason=reason)
    return results


def _reason(conv: nn.Conv2d | nn.Linear, reason: str, uses: int, config: BlockConfig) -> str:
    if not reason and pruned_count(config.sparsity, conv.weight.shape[1]) == 0:
        return f"{conv.weight.shape[1]} input channels: the share of them is less than one"
    return reason or ("the layer, or its weight, is used more than once" if uses > 1 else "")
