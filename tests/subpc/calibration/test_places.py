"""Which tensors become codes, and which share a quantization."""

import torch
from torch import nn
from torch.nn import functional as F

from subpc.calibration.places import find_places
from subpc.passes import ops
from tests.subpc.calibration.float_network import rewritten


class Parts(nn.Module):
    """Two branches that are pooled and joined, a sum, a mean, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.joined, self.other = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = F.max_pool2d(self.left(x).relu(), 2), F.max_pool2d(self.right(x), 2)
        y = torch.cat([left, right], 1)
        y = F.hardswish(self.joined(y)) + self.other(y).sigmoid()
        return self.fc(y.mean((2, 3)))


def test_branches_that_are_joined_share_a_quantization() -> None:
    graph = rewritten(Parts(), 1, 3, 8, 8).graph
    places = find_places(graph)
    assert len(places.layers) == 5
    shared = [group for group in places.groups if len(group) > 1]
    (group,) = shared
    names = {ops.layer_of(graph.exprs[var]) for var in group}
    assert names == {"left", "right"}


def test_poolings_and_joins_are_not_rounded_again_and_results_stay_floats() -> None:
    graph = rewritten(Parts(), 1, 3, 8, 8).graph
    coded = {var for group in find_places(graph).groups for var in group}
    operators = {graph.exprs[var].op.name for var in coded if var in graph.exprs}
    assert operators == {ops.CONV2D, ops.ELEMENTWISE, ops.GLOBAL_POOL}
    assert graph.inputs[0] in coded
    assert not coded & set(graph.outputs())


def test_layers_that_nobody_wants_in_integers_and_what_only_they_read_stay_floats() -> None:
    graph = rewritten(Parts(), 1, 3, 8, 8).graph
    places = find_places(graph, lambda name: name in ("left", "fc"))
    assert {ops.layer_of(graph.exprs[v]) for v in places.layers} == {"left", "fc"}
    coded = {var for group in places.groups for var in group}
    read = {ops.layer_of(graph.exprs[v]) for v in coded if graph.call(v, ops.CONV2D)}
    assert read == set()


class Turned(nn.Module):
    """Between the layers stands what no kernel takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).transpose(2, 3))


def test_what_no_kernel_takes_reads_floats_and_its_result_is_rounded() -> None:
    graph = rewritten(Turned(), 1, 3, 12, 12).graph
    places = find_places(graph)
    (first, second) = places.layers
    coded = {var for group in places.groups for var in group}
    assert first not in coded
    assert graph.resolve(graph.exprs[second].args[0]) in coded
