"""Which channels of a network go together: found in the traced graph, for any architecture.

A channel that a layer gives is read by others, summed with other layers' channels, scaled by the
gates of squeeze-and-excite, filtered by depthwise convolutions and joined with others. Whatever is
computed from it alone, and all that it is summed with, has one number here; layers whose outputs
have numbers in common are one group, of which channels can only be removed in all at once. The rule
is that of DepGraph (Fang et al., CVPR 2023), followed channel by channel instead of layer by layer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from subpc.algorithms.network.channel_flow import Flow, follow_channels


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that compete for being kept: numbers (c,), in the order of the writers' outputs.

    writers, readers: layers in the order of the graph (dotted names); gates: those of the readers
    whose result scales the channels that they read, as in squeeze-and-excite. summed: several
    writers' channels are added up; bent: an activation is put to them. parts: how many equal parts
    of the numbers, one after the other, have to keep equally many (grouped convolutions). kept: why
    none can go, "" where some can.
    """

    numbers: torch.Tensor
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    gates: tuple[str, ...] = ()
    summed: bool = False
    bent: bool = True
    parts: int = 1
    kept: str = ""


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """groups: of all channels. inputs, outputs: {layer: numbers (c,) of its channels}; nodes: the
    same for values of the graph, by the node's name. total: how many numbers there are."""

    groups: tuple[Group, ...]
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    nodes: Mapping[str, torch.Tensor]
    total: int


def find_coupling(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> Coupling:
    """The coupling of a network, traced as find_pairs does; modules: all of it by their names."""
    flow = follow_channels(graph, modules)
    inputs, outputs = (
        {name: flow.found(numbers) for name, numbers in side.items()}
        for side in (flow.inputs, flow.outputs)
    )
    nodes = {node.name: flow.found(value.numbers) for node, value in flow.values.items()}
    groups = tuple(
        _group(flow, names, inputs, outputs) for names in _writers_together(flow, outputs)
    )
    return Coupling(
        groups=groups,
        inputs=_tensors(inputs),
        outputs=_tensors(outputs),
        nodes=_tensors(nodes),
        total=len(flow.parent),
    )


def _tensors(lists: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(numbers) for name, numbers in lists.items()}


def _writers_together(flow: Flow, outputs: Mapping[str, list[int]]) -> list[tuple[str, ...]]:
    """Layers whose outputs have numbers in common, directly or through others."""
    groups: list[tuple[set[int], list[str]]] = []
    for name in flow.writers:
        numbers, names = set(outputs[name]), [name]
        apart = []
        for other, others in groups:
            if numbers.isdisjoint(other):
                apart.append((other, others))
            else:
                numbers |= other
                names = others + names
        groups = [*apart, (numbers, names)]
    return [tuple(names) for _, names in groups]


def _group(
    flow: Flow,
    names: tuple[str, ...],
    inputs: Mapping[str, list[int]],
    outputs: Mapping[str, list[int]],
) -> Group:
    writers = tuple(name for name in flow.writers if name in names)
    numbers = list(dict.fromkeys(number for name in writers for number in outputs[name]))
    own = set(numbers)
    readers = tuple(name for name in flow.readers if not own.isdisjoint(inputs[name]))
    reasons = [flow.frozen[number] for number in sorted(own) if number in flow.frozen]
    parts, wrong = _parts(flow, numbers, (inputs, outputs))
    gates = tuple(
        reader
        for reader in readers
        if any(flow.follows(writer, reader) for writer in writers if writer != reader)
    )
    summed, bent = (
        any(flow.find(number) in own for number in some) for some in (flow.summed, flow.bent)
    )
    return Group(
        numbers=torch.tensor(numbers),
        writers=writers,
        readers=readers,
        gates=() if summed else gates,
        summed=summed,
        bent=bent,
        parts=parts,
        kept=(reasons or [wrong])[0],
    )


def _parts(
    flow: Flow, numbers: list[int], sides: Iterable[Mapping[str, list[int]]]
) -> tuple[int, str]:
    """In how many equal parts the grouped convolutions that read or write the numbers have them; a
    reason where they do not agree."""
    parts, own = 1, set(numbers)
    for side in sides:
        for name, count in flow.grouped.items():
            if own.isdisjoint(side[name]):
                continue
            if side[name] != numbers or max(count, parts) % min(count, parts):
                return 1, f"{name} groups its channels in another way"
            parts = max(count, parts)
    return parts, ""
