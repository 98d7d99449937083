"""Which convolutions lose blocks, and why the others stay dense."""

from collections import Counter
from fnmatch import fnmatch

from torch import fx, nn

from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.data_free_report import LayerResult


def sort_layers(graph: fx.Graph, modules: dict[str, nn.Module], config: BlockConfig) -> dict[str, LayerResult]:
    """A result for each layer with weights, in the order of the graph; those with a reason stay dense."""
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    uses = Counter(id(getattr(modules[name], "weight", modules[name])) for name in calls)
    results: dict[str, LayerResult] = {}
    stem = True
    for name in calls:
        module = modules[name]
        if not isinstance(module, nn.Conv2d | nn.Linear) or name in results:
            continue
        reason = "fully connected" if isinstance(module, nn.Linear) else "stem" if stem else _reason(name, module, config)
        stem = stem and not isinstance(module, nn.Conv2d)
        if not reason and uses[id(module.weight)] > 1:
            reason = "the layer, or its weight, is used more than once"
        filters = module.weight.shape[0]
        results[name] = LayerResult(name=name, filters=filters, kept=filters, reason=reason)
    return results


def _reason(name: str, conv: nn.Conv2d, config: BlockConfig) -> str:
    if conv.groups != 1:
        return "depthwise" if conv.groups == conv.in_channels else "grouped"
    if any(fnmatch(name, pattern) for pattern in config.keep_dense):
        return "kept dense by its name"
    if conv.out_channels % config.n:
        return f"{conv.out_channels} filters, not divisible by {config.n}"
    if int(config.sparsity * conv.in_channels) == 0:
        return f"{conv.in_channels} input channels: the share of them is less than one"
    return ""
