"""Which channels go together: as the rule of torch-pruning has it, and as small networks show."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from subpc.algorithms.network.channels import is_depthwise
from subpc.algorithms.network.coupling import Coupling, Group, find_coupling
from subpc.algorithms.network.pairing import find_pairs
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.coupled_nets import made

End = tuple[str, str]
LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)


def coupling(net: nn.Module) -> Coupling:
    return find_coupling(find_pairs(net).graph, dict(net.named_modules()))


def layer_classes(net: nn.Module) -> set[frozenset[End]]:
    """What torch-pruning (DepGraph) couples, transcribed: each layer has two ends, `in` and `out`.

    Ends of two layers are one class where autograd's graph leads from one layer to the next through
    nothing with weights (inter-layer dependency), and the two ends of a layer are where both have
    the same scheme, as in batch norms and depthwise convolutions (intra-layer dependency). For
    networks without concatenation.
    """
    owner: dict[Any, str] = {}

    def remember(name: str) -> Callable[..., None]:
        return lambda _, __, output: owner.update({output.grad_fn: name})

    for name, module in net.named_modules():
        if isinstance(module, LAYERS):
            module.register_forward_hook(remember(name))
    result = net(torch.zeros(1, 3, 64, 64))
    ends: dict[End, set[End]] = {}

    def unite(one: End, other: End) -> None:
        both = ends.get(one, {one}) | ends.get(other, {other})
        ends.update(dict.fromkeys(both, both))

    def sources(step: Any) -> Iterator[Any]:
        for before, _ in step.next_functions:
            if before is not None and before.name() not in {
                "torch::autograd::AccumulateGrad",
                "TBackward0",
            }:
                yield before

    def end_of(step: Any) -> End:
        return (owner[step], "out") if step in owner else (f"{id(step)}", "step")

    seen, waiting = set(), [result.grad_fn]
    while waiting:
        step = waiting.pop()
        if step in seen:
            continue
        seen.add(step)
        if step in owner:
            name = owner[step]
            module = net.get_submodule(name)
            ends.setdefault((name, "out"), {(name, "out")})
            if isinstance(module, nn.BatchNorm2d) or is_depthwise(module):
                unite((name, "in"), (name, "out"))
        for before in sources(step):
            unite((owner[step], "in") if step in owner else end_of(step), end_of(before))
            waiting.append(before)
    classes = {frozenset(end for end in found if end[1] != "step") for found in ends.values()}
    return {found for found in classes if any(side == "out" for _, side in found)}


def our_classes(net: nn.Module) -> set[frozenset[End]]:
    found = coupling(net)

    def has(numbers: torch.Tensor, group: Group) -> bool:
        return bool(torch.isin(numbers, group.numbers).any())

    return {
        frozenset(
            (name, side)
            for side, of in (("in", found.inputs), ("out", found.outputs))
            for name, numbers in of.items()
            if has(numbers, group)
        )
        for group in found.groups
    }


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"]
)
def test_layers_are_coupled_as_in_torch_pruning(name: str) -> None:
    net = build_arch(f"torchvision:{name}").eval()
    expected = layer_classes(net)
    assert our_classes(net) == expected
    assert len(expected) > 10


def groups(name: str) -> dict[str, Group]:
    """By the first layer that writes it."""
    return {group.writers[0]: group for group in coupling(made(name)).groups}


def test_an_expansion_its_gate_and_its_projection_are_one_group() -> None:
    for kind in ("gate of convolutions", "gate of linear layers"):
        found = groups(kind)["expand.0"]
        assert found.writers == ("expand.0", "gate.expand")
        assert found.readers == ("gate.reduce", "project.0")
        assert found.gates == ("gate.reduce",)
        assert not found.kept


def test_grouped_convolutions_ask_for_equal_parts() -> None:
    found = groups("grouped")
    assert {name: group.parts for name, group in found.items()} == {
        "stem.0": 1,
        "blocks.0.0": 4,
        "blocks.1.0": 4,
        "blocks.2.0": 1,
        "last": 1,
    }


def test_joined_channels_stay_groups_of_their_own() -> None:
    found = groups("joined")
    assert found["left.0"].readers == found["right.0"].readers == ("dense.0",)
    assert found["grown.0"].readers == ("first", "second.0")


def test_a_stream_has_all_its_writers_and_readers() -> None:
    found = groups("stream")["stem.0"]
    assert found.writers == ("stem.0", "inner.0.1.0", "inner.1.1.0")
    assert found.readers == ("inner.0.0.0", "inner.1.0.0", "last")
    assert found.summed


class Odd(nn.Module):
    """Steps that see channels as more than a row of equals."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.one, self.two, self.kind = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), kind
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, 4, h, w)."""
        x = self.one(x)
        steps = {
            "softmax": lambda: torch.softmax(x, 1),
            "shuffled": lambda: (
                x.view(x.size(0), 2, 4, x.size(2), x.size(3)).transpose(1, 2).reshape(x.shape)
            ),
            "cut": lambda: torch.cat([x[:, 4:], x[:, :4]], 1),
            "scaled": lambda: x * self.scale,
            "spread": lambda: x * x.mean(1, keepdim=True),
            "counted": lambda: x / x.size(1),
        }
        return self.two(steps[self.kind]())


@pytest.mark.parametrize("kind", ["softmax", "shuffled", "cut", "scaled", "spread", "counted"])
def test_channels_that_a_step_does_not_keep_apart_stay(kind: str) -> None:
    found = coupling(Odd(kind)).groups[0]
    assert found.writers == ("one",)
    assert "reads it" in found.kept
