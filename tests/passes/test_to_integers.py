"""Networks with roundings become networks of codes that mean the same, and say what stayed in
floats and why."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional as F
from tvm import relax

from subpc.passes import ops
from subpc.passes.codes import LARGEST_SUM
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of
from subpc.passes.move_quantize import move_quantize
from subpc.passes.to_integers import to_integers
from subpc.schedules.isa import AVX512_VNNI, GENERIC, VectorIsa
from subpc.schedules.quantization import LARGEST_CODE, Quantization
from tests.passes.evaluate import attributes, operators
from tests.passes.integer_meanings import evaluate_exactly
from tests.passes.roundings import Where, everywhere, rounded_network

SHAPE = (2, 4, 6, 6)
Forward = Callable[["Layers", torch.Tensor], torch.Tensor]


class Layers(nn.Module):
    """Layers for a forward pass that each test writes itself."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
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
    """A network that means what the network of rounded values meant; floats go in and out."""
    before = rounded_network(Layers(forward).eval(), SHAPE, where=where, weights=weights)
    after = to_integers(move_quantize(before), isa)
    x = torch.rand(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for wanted, found in zip(evaluate_exactly(before, x), evaluate_exactly(after, x), strict=True):
        assert found.dtype == torch.float64
        assert wanted.unique().numel() > 4
        assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert not {"subpc.fake_quantize", "subpc.dequantize"} & set(operators(after))
    return after


def written(module: tvm.IRModule) -> list[tuple[str, str]]:
    """Every operator with the type that it writes."""
    graph = Dataflow(module["main"])
    return [
        (call.op.name.removeprefix("relax.subpc."), dtype_of(var))
        for var, call in graph.calls(*ops.ALL)
    ]


def only(*names: str) -> Where:
    """Round the results of these operators."""
    return lambda name, number: everywhere(name, number) if name in names else None


def gated(n: Layers, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(n.a(x))
    return n.b(y * F.hardsigmoid(n.gate(y.mean((2, 3), keepdim=True))))


NETWORKS: dict[str, tuple[Forward, list[str]]] = {
    "layer after layer": (lambda n, x: n.b(F.relu(n.a(x))), ["conv2d", "conv2d"]),
    "strides and groups": (lambda n, x: n.depthwise(n.down(n.a(x)).relu()), ["conv2d"] * 3),
    "a sum of codes": (lambda n, x: F.relu(n.b(n.a(x)) + n.a(x)), ["conv2d"] * 3),
    "a window's mean": (lambda n, x: F.avg_pool2d(n.a(x), 3, 2, 1), ["conv2d", "pool2d"]),
    "upsampling": (lambda n, x: n.up(n.a(x)), ["conv2d", "conv2d", "interleave"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_between_input_and_output_all_is_codes(name: str) -> None:
    forward, names = NETWORKS[name]
    first, *inside, last = written(converted(forward))
    assert [name for name, _ in inside if name != "elementwise"] == names
    assert {dtype for _, dtype in [first, *inside]} == {"uint8"}
    # What the codes of the result stand for.
    assert last == ("elementwise", "float32")


def test_a_gate_and_a_fully_connected_layer_are_codes() -> None:
    inside = written(converted(lambda n, x: n.fc(gated(n, x).mean((2, 3)))))[:-1]
    assert {dtype for _, dtype in inside} == {"uint8"}
    assert inside[-1] == ("linear", "uint8")


def test_a_layer_knows_its_scales() -> None:
    (conv,) = attributes(converted(lambda n, x: F.relu(n.a(x))), "relax.subpc.conv2d")
    assert conv["activation"] == "relu"
    x, y = everywhere("", 0), Quantization(scale=conv["quantization"][0], zero_point=90)
    assert conv["x_quantization"] == (x.scale, x.zero_point)
    assert y.scale == everywhere("", conv["quantization"][1] - 90).scale
    assert len(conv["weight_scales"]) == 8


def test_a_residual_is_codes_where_it_was_rounded() -> None:
    forward = lambda n, x: n.b(F.relu(n.b(y := n.a(x)) + y))  # noqa: E731
    convs = attributes(converted(forward), "relax.subpc.conv2d")
    assert [bool(conv["residual_quantization"]) for conv in convs] == [False, True, False]

    def floats(n: Layers, x: torch.Tensor) -> torch.Tensor:
        return n.b(n.a(x)) + n.a(x) * 0.5  # rounded nowhere but in front of the layers

    (_, last) = attributes(converted(floats, only("input")), "relax.subpc.conv2d")[-2:]
    assert not last.get("residual_quantization")


def test_a_sum_between_roundings_is_a_pass_over_codes() -> None:
    def forward(n: Layers, x: torch.Tensor) -> torch.Tensor:
        return F.relu(torch.max_pool2d(n.a(x), 2) + torch.max_pool2d(n.b(n.a(x)), 2))

    found = attributes(converted(forward), "relax.subpc.elementwise")
    (add,) = [a for a in found if "add" in a["program"]]
    assert add["dtype"] == "uint8"
    assert len(set(add["quantizations"])) == 2


def test_concatenated_codes_get_one_scale_while_they_are_written() -> None:
    module = converted(lambda n, x: n.gate(torch.cat([n.a(x).split(4, 1)[0], x], 1)))
    (conv,) = [a for a in attributes(module, "relax.subpc.conv2d") if a["name"] == "gate"]
    (concat,) = attributes(module, "relax.subpc.concat")
    assert concat["quantization"] == conv["x_quantization"]
    assert ("concat", "uint8") in written(module)


def test_a_pass_that_is_not_rounded_reads_codes_and_writes_floats() -> None:
    module = converted(lambda n, x: n.a(x) * n.gate(n.a(x)), only("input", "conv2d"))
    assert written(module)[-1] == ("elementwise", "float32")
    last = attributes(module, "relax.subpc.elementwise")[-1]
    assert last["program"] == ("arg 0", "arg 1", "mul")
    assert all(last["quantizations"])


def test_a_result_that_is_also_read_unrounded_stays_unrounded() -> None:
    before = rounded_network(Layers(lambda n, x: n.b(n.a(x))).eval(), SHAPE)
    graph = Dataflow(before["main"])
    (first, _), _ = graph.calls(ops.CONV2D)
    graph.output = relax.Tuple([graph.output, first])
    module = tvm.IRModule({"main": graph.function()})
    after = to_integers(move_quantize(module), AVX512_VNNI)
    x = torch.rand(SHAPE, dtype=torch.float64)
    for a, b in zip(evaluate_exactly(module, x), evaluate_exactly(after, x), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)
    assert written(after)[1] == ("conv2d", "float32")
    assert written(after)[2] == ("elementwise", "uint8")


def reasons(module: tvm.IRModule) -> list[str]:
    found = attributes(module, "relax.subpc.conv2d") + attributes(module, "relax.subpc.linear")
    return [a.get("why_float", "") for a in found]


def test_layers_of_floats_say_why() -> None:
    two: Forward = lambda n, x: n.b(n.a(x))  # noqa: E731
    assert reasons(converted(two)) == ["", ""]
    assert reasons(converted(two, only("conv2d"))) == ["input: not quantized", ""]
    assert reasons(converted(two, weights=False)) == ["weights: not quantized"] * 2
    no = "target: generic has no instructions that multiply bytes"
    assert reasons(converted(two, isa=GENERIC)) == [no] * 2


def test_weights_of_a_layer_of_floats_are_floats() -> None:
    graph = Dataflow(converted(lambda n, x: n.b(n.a(x)), isa=GENERIC)["main"])
    weights = [constant_of(graph.resolve(call.args[1])) for _, call in graph.calls(ops.CONV2D)]
    assert [weight is not None and weight.dtype == np.float32 for weight in weights] == [True] * 2


def test_sums_that_32_bits_do_not_hold_are_floats() -> None:
    inputs = LARGEST_SUM // (127 * LARGEST_CODE)

    def why(count: int) -> str:
        net = nn.Linear(count, 2)
        net.weight.data.fill_(1.0)
        after = to_integers(rounded_network(net, (1, count)), AVX512_VNNI)
        return reasons(after)[0]

    assert why(inputs) == ""
    assert why(inputs + 1) == "sums: too large for 32 bits"
