"""Which convolutions may be changed together: conv -> batch norm -> activation -> conv, found in
the traced graph."""

import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from subpc.algorithms.report import LayerResult
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.text import first_line

_RELU = (nn.ReLU, F.relu, torch.relu, "relu", "relu_")
_RELU6 = (nn.ReLU6, F.relu6, nn.Hardtanh, F.hardtanh)
# Each channel stays by itself, so a removed channel is removed behind them too.
_CHANNELWISE = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)
_CHANNELWISE_CALLS = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.dropout)


class _Tracer(fx.Tracer):
    """Layers with weights stay whole, also where a class of the user's derives from them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
        return leaf or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """conv `first`, its batch norm and activation, and the convolution that alone reads the result
    (dotted names)."""

    first: str
    norm: str
    second: str
    activation: str
    second_norm: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """All pairs in the order of the graph; each convolution's batch norm; why the other
    convolutions start no pair."""

    graph: fx.Graph
    pairs: tuple[LayerPair, ...]
    norms: dict[str, str]
    left_alone: dict[str, str] = field(default_factory=dict)


def find_pairs(model: nn.Module) -> Pairing:
    """Trace `model` and pair its convolutions; UnsupportedModelError where its control flow depends
    on values."""
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        raise UnsupportedModelError(
            f"The network cannot be traced ({first_line(error, 150)}).\n"
            "Its forward has to be free of decisions that depend on tensor values."
        ) from error
    modules = dict(model.named_modules())
    uses = count_uses(graph, modules)
    pairs, norms, reasons = [], {}, {}
    for node in graph.nodes:
        if isinstance(called_module(node, modules), nn.Conv2d):
            norm = _norm_behind(node, modules)
            if (
                norm is not None
                and uses[id(modules[node.target].weight)] == 1
                and uses[id(modules[str(norm.target)])] == 1
            ):
                norms[node.target] = str(norm.target)
            found = _pair(node, norm, modules, uses)
            if isinstance(found, str):
                reasons[node.target] = found
            else:
                pairs.append(found)
    return Pairing(graph=graph, pairs=tuple(pairs), norms=norms, left_alone=reasons)


def layers_with_weights(modules: dict[str, nn.Module], pairing: Pairing) -> dict[str, LayerResult]:
    """An empty result for each convolution and linear layer, with the reason where it starts no
    pair."""
    layers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    sizes = {name: layer.weight.shape[0] for name, layer in layers.items()}
    return {
        n: LayerResult(name=n, filters=size, kept=size, reason=pairing.left_alone.get(n, ""))
        for n, size in sizes.items()
    }


def check_skip(skip: tuple[str, ...], modules: dict[str, nn.Module]) -> None:
    """ConfigError for names that are no layers."""
    unknown = sorted(set(skip) - set(modules))
    if unknown:
        raise ConfigError(
            f"skip names layers that the network does not have: {', '.join(unknown[:5])}."
        )


def count_uses(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> Counter[int]:
    """How often a module is called, and a weight read, through whatever names."""
    counts: Counter[int] = Counter()
    for node in graph.nodes:
        module = called_module(node, modules)
        if module is not None:
            counts[id(module)] += 1
            weight = getattr(module, "weight", None)
            if weight is not None:
                counts[id(weight)] += 1
    return counts


def called_module(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The module that the node calls, if it calls one."""
    return modules.get(str(node.target)) if node.op == "call_module" else None


def _norm_behind(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    user = _only_user(node)
    return (
        user
        if user is not None and isinstance(called_module(user, modules), nn.BatchNorm2d)
        else None
    )


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def activation_of(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    """`relu` or `relu6` where the node is one."""
    module = called_module(node, modules)
    if isinstance(module, nn.Hardtanh) and (module.min_val, module.max_val) != (0.0, 6.0):
        return None
    kind: Any = type(module) if module is not None else node.target
    if kind in (F.hardtanh,) and tuple(node.args[1:3]) != (0.0, 6.0):
        return None
    return "relu" if kind in _RELU else "relu6" if kind in _RELU6 else None


def is_channelwise(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether the node treats every channel by itself and keeps the channels' order."""
    module = called_module(node, modules)
    return (
        isinstance(module, _CHANNELWISE)
        if module is not None
        else node.target in _CHANNELWISE_CALLS
    )


def _pair(
    node: fx.Node, norm: fx.Node | None, modules: dict[str, nn.Module], uses: Counter[int]
) -> LayerPair | str:
    conv = modules[str(node.target)]
    assert isinstance(conv, nn.Conv2d)
    if uses[id(conv.weight)] > 1 or uses[id(conv)] > 1:
        return "the layer, or its weight, is used more than once"
    if norm is None:
        return "no batch norm alone behind it"
    if uses[id(modules[str(norm.target)])] > 1:
        return "its batch norm is used more than once"
    if conv.groups != 1:
        return "grouped convolution: its outputs depend on one group of inputs"
    following = _only_user(norm)
    kind = activation_of(following, modules) if following is not None else None
    if following is None or kind is None:
        return _why(norm, following)
    return _second(node, norm, kind, following, modules, uses)


def _second(
    node: fx.Node,
    norm: fx.Node,
    kind: str,
    at: fx.Node,
    modules: dict[str, nn.Module],
    uses: Counter[int],
) -> LayerPair | str:
    following = _only_user(at)
    while following is not None and is_channelwise(following, modules):
        at, following = following, _only_user(following)
    second = called_module(following, modules) if following is not None else None
    if following is None or not isinstance(second, nn.Conv2d):
        return _why(at, following)
    if second.groups != 1:
        return f"{following.target}, behind it, is a grouped convolution"
    if uses[id(second.weight)] > 1:
        return f"{following.target}, behind it, is used more than once"
    behind = _norm_behind(following, modules)
    second_norm = (
        str(behind.target)
        if behind is not None and uses[id(modules[str(behind.target)])] == 1
        else None
    )
    return LayerPair(
        first=str(node.target),
        norm=str(norm.target),
        second=str(following.target),
        activation=kind,
        second_norm=second_norm,
    )


def _why(node: fx.Node, following: fx.Node | None) -> str:
    if following is None:
        return f"{len(node.users)} layers read its result"
    if following.target in (operator.add, operator.iadd, torch.add):
        return "its result is added to a shortcut"
    if following.target in (torch.cat, torch.concat):
        return "its result is concatenated with others"
    return (
        f"{following.target if isinstance(following.target, str) else following.name} follows, not"
        " a convolution"
    )
