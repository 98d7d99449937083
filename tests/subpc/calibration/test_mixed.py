"""precision="auto": each layer in bytes where that is faster and does no harm, with its reason."""

import pytest
import torch
from torch import nn

from subpc.calibration.interpret import Interpreter
from subpc.calibration.mixed import Mixed, mix
from subpc.calibration.noise import BOUND, decibels
from subpc.calibration.quantize import Settings
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow
from subpc.schedules.isa import AVX2, AVX512, AVX512_VNNI, VectorIsa
from tests.subpc.calibration.float_network import rewritten

SHAPE = (1, 16, 24, 24)


class Chain(nn.Module):
    """Four layers; with outliers, two channels that `b` reads are 10,000 times as large as the
    others, and count for nothing in what it computes."""

    def __init__(self, *, outliers: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(n, 64, 3, padding=1) for n in (16, 64, 64))
        self.d = nn.Conv2d(64, 64, 1)
        if outliers:
            with torch.no_grad():
                self.a.weight[:2] *= 1e4
                self.b.weight[:, :2] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.a, self.b, self.c):
            x = torch.relu(layer(x))
        return self.d(x)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(1))


def mixed(net: nn.Module, isa: VectorIsa = AVX512_VNNI, x: torch.Tensor | None = None) -> Mixed:
    settings = Settings(pairs=isa.dot == "madd")
    return mix(rewritten(net, *SHAPE), images(8) if x is None else x, settings, isa)


def attributes(module: Mixed, attribute: str) -> dict[str, str]:
    graph = Dataflow(module.module["main"])
    found = [ops.attributes(call) for _, call in graph.calls(ops.CONV2D, ops.LINEAR)]
    return {a["name"]: a[attribute] for a in found if attribute in a}


def in_codes(module: Mixed) -> set[str]:
    """Layers with weights of codes."""
    graph = Dataflow(module.module["main"])
    layers = [call for _, call in graph.calls(ops.CONV2D, ops.LINEAR)]
    coded = [c for c in layers if graph.call(c.args[1], ops.DEQUANTIZE) is not None]
    return {ops.attributes(call)["name"] for call in coded}


def quality(module: Mixed, net: nn.Module) -> float:
    x = images(16)[8:]
    with torch.no_grad():
        return decibels(Interpreter(module.module).run(x)[0], net(x))


@pytest.mark.parametrize("isa", [AVX512_VNNI, AVX512, AVX2], ids=lambda isa: isa.name)
def test_a_common_network_computes_in_bytes_throughout(isa: VectorIsa) -> None:
    net = Chain(outliers=False)
    found = mixed(net, isa)
    assert in_codes(found) == {"a", "b", "c", "d"}
    assert all("predicted" in why for why in attributes(found, "why_integers").values())
    assert set(attributes(found, "why_integers")) == in_codes(found)
    assert found.note.startswith("4 of 4 layers in int8, noise ")
    assert quality(found, net) > BOUND


def test_a_layer_that_bytes_harm_stays_in_floats_and_only_that() -> None:
    net = Chain(outliers=True)
    found = mixed(net)
    assert in_codes(found) == {"a", "c", "d"}
    (why,) = attributes(found, "why_float").items()
    assert why[0] == "b"
    assert why[1].startswith("too much noise in int8 (its own is ")
    assert f"has to be {BOUND:.1f} dB" in why[1]
    assert quality(found, net) > BOUND


class Small(nn.Module):
    """A layer of few products between planes turned round, which are always floats."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flip(self.layer(torch.flip(x, (2,))), (2,))


def test_a_layer_that_gains_less_than_converting_costs_stays_in_floats() -> None:
    found = mixed(Small())
    assert in_codes(found) == set()
    (why,) = attributes(found, "why_float").values()
    assert why.startswith("not faster in int8 (predicted ")
    assert why.endswith(", but for conversions)")
    assert found.note == "0 of 1 layers in int8"


def test_where_weights_are_not_finite_everything_stays_as_it_is() -> None:
    net = Chain(outliers=False)
    with torch.no_grad():
        net.c.weight[0, 0, 0, 0] = torch.nan
    found = mixed(net)
    assert in_codes(found) == set()
    assert set(attributes(found, "why_float")) == {"a", "b", "c", "d"}
    assert found.note.startswith("everything in float32: layer c: weights that are not finite")


def test_so_it_does_where_values_are_not_finite() -> None:
    x = images(8)
    x[3, 0, 0, 0] = torch.inf
    found = mixed(Chain(outliers=False), x=x)
    assert in_codes(found) == set()
    assert "not finite on the images" in found.note


class Norm(nn.Module):
    """A batch norm and a ReLU in front of a 1x1 convolution, which float kernels compute as they
    load."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flip(self.layer(torch.relu(self.norm(torch.flip(x, (2,))))), (2,))


def test_a_network_that_stays_in_floats_is_the_one_that_float32_compiles() -> None:
    found = Dataflow(mixed(Norm()).module["main"])
    floats = Dataflow(rewritten(Norm(), *SHAPE).module["main"])
    programs = [
        [list(ops.attributes(call)["program"]) for _, call in graph.calls(ops.ELEMENTWISE)]
        for graph in (found, floats)
    ]
    assert programs[0] == programs[1] != []
