"""From which groups of channels UDFC removes some, which layers decide that, and when."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from subpc.algorithms.network.coupling import Coupling, Group
from subpc.algorithms.statistics.moments import WIDEST, taps_apart
from subpc.algorithms.udfc.choose_channels import count_kept
from subpc.algorithms.udfc.config import UdfcConfig

_WIDER = "; --channels all removes them, too"


@dataclass(frozen=True, kw_only=True)
class Together:
    """Groups whose channels are chosen at once, because layers read several of them.

    deciding: those layers, whose error decides. ahead: whether more than one layer has to be solved
    anew, so that the choice is made before the first of them is.
    """

    groups: tuple[Group, ...]
    deciding: tuple[str, ...]
    ahead: bool


@dataclass(frozen=True, kw_only=True)
class RemovalPlan:
    """together: what loses channels. reasons: {layer: why it does not}, of all layers that give
    channels."""

    together: tuple[Together, ...]
    reasons: Mapping[str, str]


def plan_removal(
    coupling: Coupling, modules: Mapping[str, nn.Module], config: UdfcConfig, images: str
) -> RemovalPlan:
    """For a network with this coupling.

    images: what it is followed with, `given`, `random`, or `none`, with which only channels that
    one layer reads can go. Without a batch norm random images do not show how large values are.
    """
    gates = {name for group in coupling.groups for name in group.gates}
    chosen: list[Group] = []
    reasons: dict[str, str] = {}
    for group in coupling.groups:
        reason = (
            group.kept
            or _reason(group, gates, modules, config)
            or _skipped(group, coupling, config.skip)
            or _unknown(group, coupling, modules, images)
        )
        if reason:
            reasons |= dict.fromkeys(_layers_of(group, coupling), reason)
        else:
            chosen.append(group)
    together = _connected(chosen)
    for one in together if images == "none" else []:
        if not one.ahead:
            continue
        why = f"{len(one.deciding)} layers read its result, or its gate: that needs images"
        for group in one.groups:
            reasons |= dict.fromkeys(_layers_of(group, coupling), why)
    left = tuple(one for one in together if not (one.ahead and images == "none"))
    return RemovalPlan(together=left, reasons=reasons)


def deciding(group: Group) -> tuple[str, ...]:
    """The layers whose error decides which channels go: all that read them but the gates."""
    return tuple(name for name in group.readers if name not in group.gates)


def count_of_part(group: Group, ratio: float) -> int:
    """How many channels stay in each part of the group; ConfigError where none would."""
    size = len(group.numbers) // group.parts
    return count_kept(size, ratio) if group.parts == 1 else max(1, round(size * (1 - ratio)))


def _reason(
    group: Group, gates: set[str], modules: Mapping[str, nn.Module], config: UdfcConfig
) -> str:
    """Why the settings, or the method, leave the group's channels alone, "" where they do not."""
    if all(name in gates for name in group.writers):
        return "it is inside squeeze-and-excite"
    if not any(isinstance(modules[name], nn.Conv2d) for name in group.writers):
        return "no convolution"
    readers = deciding(group)
    if not readers:
        return "nothing reads its result"
    long = [name for name in readers if _length(modules[name]) > WIDEST]
    if long:
        return f"{long[0]} reads it, whose filters are too long to be solved anew"
    if config.channels == "all":
        return ""
    if group.summed:
        return "its result is added to others" + _WIDER
    if not group.bent:
        return "it is a block's result, with no activation" + _WIDER
    if len(readers) > 1:
        return f"{len(readers)} layers read its result" + _WIDER
    if not isinstance(modules[readers[0]], nn.Conv2d):
        return f"{readers[0]} reads its result, not a convolution" + _WIDER
    return ""


def _length(layer: nn.Module) -> int:
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight[0].numel() // taps_apart(layer)


def _skipped(group: Group, coupling: Coupling, skip: tuple[str, ...]) -> str:
    own = group.numbers
    for name in skip:
        sides = (coupling.inputs, coupling.outputs)
        if any(name in side and bool(torch.isin(side[name], own).any()) for side in sides):
            return f"{name} is skipped"
    return ""


def _unknown(
    group: Group, coupling: Coupling, modules: Mapping[str, nn.Module], images: str
) -> str:
    names = _layers_of(group, coupling)
    if images == "given" or any(isinstance(modules[name], nn.BatchNorm2d) for name in names):
        return ""
    return "no batch norm behind it: give images (--calibration) to remove its channels"


def _layers_of(group: Group, coupling: Coupling) -> list[str]:
    """All layers that give channels of the group: its writers, depthwise convolutions, batch
    norms."""
    return [
        name
        for name, numbers in coupling.outputs.items()
        if bool(torch.isin(numbers, group.numbers).any())
    ]


def _connected(groups: list[Group]) -> list[Together]:
    """The groups, put together where a layer decides over several."""
    parts: list[tuple[tuple[Group, ...], set[str]]] = []
    for group in groups:
        readers = set(deciding(group))
        members: tuple[Group, ...] = (group,)
        apart = []
        for others, theirs in parts:
            if readers.isdisjoint(theirs):
                apart.append((others, theirs))
            else:
                members, readers = others + members, readers | theirs
        parts = [*apart, (members, readers)]
    return [
        Together(
            groups=members,
            deciding=tuple(sorted(readers)),
            ahead=len(readers) > 1 or any(group.gates for group in members),
        )
        for members, readers in parts
    ]
