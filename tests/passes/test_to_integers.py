"""Networks with roundings become networks of codes that mean the same, and say what stayed in
floats and why."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional as F

from subpc.passes import ops
from subpc.passes.codes import why_float
from subpc.passes.dataflow import Dataflow, dtype_of
from subpc.passes.move_quantize import move_quantize
from subpc.passes.to_integers import to_integers
from subpc.schedules.isa import AVX512_VNNI, GENERIC, VectorIsa
from subpc.schedules.quantization import Quantization
from tests.passes.evaluate import attributes, evaluate, operators
from tests.passes.roundings import Where, everywhere, rounded_network

SHAPE = (2, 4, 6, 6)
Forward = Callable[["Layers", torch.Tensor], torch.Tensor]


class Layers(nn.Module):
    """Layers for a forward pass that each test writes itself."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.down, self.depthwise = (
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
        )
        self.gate, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.body = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def converted(
    forward: Forward,
    where: Where = everywhere,
    *,
    isa: VectorIsa = AVX512_VNNI,
    weights: bool = True,
) -> tvm.IRModule:
    """A network of codes that means what the network of rounded values meant."""
    before = rounded_network(Layers(forward).eval(), SHAPE, where=where, weights=weights)
    after = to_integers(move_quantize(before), isa)
    x = torch.rand(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (wanted,), (found,) = evaluate(before, x, exact=True), evaluate(after, x, exact=True)
    assert found.dtype in (torch.float32, torch.float64)
    assert wanted.unique().numel() > 4
    assert torch.allclose(found.double(), wanted.double(), rtol=1e-6, atol=1e-6)
    names = operators(after)
    assert not {"subpc.fake_quantize", "subpc.dequantize"} & set(names)
    return after


def types(module: tvm.IRModule) -> list[tuple[str, str]]:
    """Every operator with the type that it writes."""
    graph = Dataflow(module["main"])
    return [
        (call.op.name.removeprefix("relax.subpc."), dtype_of(var))
        for var, call in graph.calls(*ops.ALL)
    ]


def squeezed(n: Layers, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(n.a(x))
    return n.b(y * F.hardsigmoid(n.gate(y.mean((2, 3), keepdim=True))))


NETWORKS: dict[str, tuple[Forward, list[str]]] = {
    "layer after layer": (lambda n, x: n.b(F.relu(n.a(x))), ["elementwise", "conv2d", "conv2d"]),
    "strides and groups": (
        lambda n, x: n.depthwise(n.down(n.a(x)).relu()),
        ["elementwise", *["conv2d"] * 3],
    ),
    "fully connected": (
        lambda n, x: n.fc(n.a(x).mean((2, 3))),
        ["elementwise", "conv2d", "global_pool", "elementwise", "view", "elementwise", "linear"],
    ),
    "mean of a window": (
        lambda n, x: F.avg_pool2d(n.a(x), 3, 2, 1),
        ["elementwise", "conv2d", "pool2d"],
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_between_roundings_all_is_codes(name: str) -> None:
    forward, _ = NETWORKS[name]
    *inside, last = types(converted(forward))
    assert {dtype for _, dtype in inside} == {"uint8"}
    assert last == ("elementwise", "float32")  # the network returns what its codes stand for
