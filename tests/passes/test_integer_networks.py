"""Networks of codes: decided, lowered and run, they give what they mean in float64; their reports
say what each layer computes in."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.errors import TargetError
from subpc.frontend.import_model import import_model
from subpc.library.layer_results import read_result
from subpc.library.report import CompileReport, LayerReport, Metadata, precision_of
from subpc.passes.decide_layers import MIN_GAIN
from subpc.passes.layer_report import layer_report
from subpc.passes.pipeline import rewrite_model
from subpc.passes.plan_memory import plan_memory
from subpc.passes.program import Location
from subpc.passes.step_result import step_result
from subpc.schedules.isa import AVX512_VNNI, AVX512F, GENERIC
from subpc.schedules.quantization import Quantization
from subpc.schedules.search_space import search_space
from tests.passes.integer_networks import Network, rewritten_network, run_network
from tests.passes.roundings import Where, everywhere
from tests.passes.test_end_to_end import prune_blocks

SHAPE = (1, 3, 12, 14)
# Of an output's values, those that a tie may have sent to the neighbouring code.
TIES = 0.01


class Net(nn.Module):
    """Layers for a forward pass that each test writes itself; b and c have blocks of zeros."""

    def __init__(self, forward: Callable[["Net", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.c, self.d = nn.Conv2d(32, 64, 1, stride=2), nn.Conv2d(64, 16, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, 2, 1, groups=32)
        self.gate, self.fc = nn.Conv2d(32, 32, 1), nn.Linear(32, 24)
        prune_blocks(self.b.weight, 16, 0.75)
        prune_blocks(self.c.weight, 8, 0.5, uniform=False)
        self.body = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def chain(n: Net, x: torch.Tensor) -> torch.Tensor:
    return n.d(F.relu6(n.c(F.hardswish(n.b(F.relu(n.a(x)))))))


def residual(n: Net, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(n.a(x))
    return F.relu(n.b(y) + y)


def concatenated(n: Net, x: torch.Tensor) -> torch.Tensor:
    y = torch.max_pool2d(F.relu(n.a(x)), 3, 2, 1)
    return n.d(torch.cat([y, F.relu(n.b(y))], 1))


def parts(n: Net, x: torch.Tensor) -> torch.Tensor:
    left, right = n.c(F.relu(n.a(x))).split(32, 1)
    return F.interpolate(n.b(F.silu(left)) + right, scale_factor=2)


def gated(n: Net, x: torch.Tensor) -> torch.Tensor:
    y = F.relu6(n.depthwise(F.relu6(n.a(x))))
    y = n.b(y * torch.sigmoid(n.gate(y.mean((2, 3), keepdim=True))))
    return n.fc(F.avg_pool2d(y, 2, 2).mean((2, 3)))


@pytest.mark.parametrize(
    ("size", "stride"), [((7, 9), 1), ((7, 9), 2), ((8, 9), 2), ((8, 9), 3), ((1, 5), 2)]
)
def test_padding_that_lies_among_the_pixels_of_a_phase_is_padding(
    size: tuple[int, int], stride: int
) -> None:
    """Odd planes, and results larger than what they are computed from."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, stride, 2), nn.Conv2d(8, 8, 1, 1, 1), nn.Conv2d(8, 8, 3, stride, 1)
    network = run_network(nn.Sequential(*layers), (1, 3, *size))
    assert len(np.unique(network.wanted[0])) > 4
    np.testing.assert_allclose(network.got[0], network.wanted[0], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "batch"), [(chain, 1), (residual, 2), (concatenated, 1), (parts, 2), (gated, 2)]
)
def test_a_network_of_codes_gives_what_it_means(
    body: Callable[[Net, torch.Tensor], torch.Tensor], batch: int
) -> None:
    network = run_network(Net(body), (batch, *SHAPE[1:]))
    (got,), (wanted,) = network.got, network.wanted
    step = np.diff(np.unique(np.round(wanted, 6))).min()
    assert len(np.unique(wanted)) > 8
    assert np.abs(got - wanted).max() < 1.01 * step
    assert (np.abs(got - wanted) > 0.5 * step).mean() < TIES


def halves(op: str, number: int) -> Quantization:
    """Steps and a zero point with which many sums lie in the middle between two codes, exactly."""
    zero = 0 if op == "input" else 101
    return Quantization(scale=2.0**-8 if op == "input" else 2.0**-6, zero_point=zero)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 32, 1), (8, 3, 6, 7)),
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), (1, 32, 6, 7)),
        (nn.Linear(96, 96), (8, 96)),
    ],
    ids=["dense", "depthwise", "linear"],
)
def test_halves_go_to_the_even_step_before_the_zero_point_is_added(
    layer: nn.Conv2d | nn.Linear, shape: tuple[int, ...]
) -> None:
    """As ONNX has it, in every kind of kernel: exactly, where float32 is exact."""
    torch.manual_seed(1)
    codes = torch.randint(-3, 4, layer.weight.shape)
    codes.reshape(len(codes), -1)[:, 0] = 127
    layer.weight.data, layer.bias.data = codes * 2.0**-6, torch.zeros_like(layer.bias)
    network = run_network(layer, shape, where=halves)
    assert [d.precision for d in network.lowered.decisions.values()] == ["int8"]
    assert len(np.unique(network.wanted[0])) > 100
    np.testing.assert_array_equal(network.got[0], network.wanted[0])


@pytest.fixture(scope="module")
def network() -> Network:
    return run_network(Net(chain), SHAPE)


def test_decisions_know_what_a_layer_computes_in(network: Network) -> None:
    decisions = network.lowered.decisions
    assert {d.precision for d in decisions.values()} == {"int8"}
    assert [(d.layer, d.kernel) for d in decisions.values()] == [
        ("a", "dense_conv"),
        ("b", "bsr_conv"),
        ("c", "bsr_conv"),
        ("d", "dense_conv"),
    ]
    # Nearly as much as there is less to do.
    assert 3.0 < decisions["b"].gain < 4.0


def test_a_sparse_layer_of_codes_has_to_pay_for_packing_its_channels() -> None:
    net = Net(lambda n, x: n.d(n.c(n.a(x))))
    prune_blocks(net.d.weight, 4, 0.25)
    (decision,) = [d for d in rewritten_network(net, SHAPE).decisions.values() if d.layer == "d"]
    assert decision.kernel == "dense_conv"
    assert decision.reason.startswith("below threshold: 1x4 uniform at 25% would gain 0.")
    assert decision.found is not None
    assert decision.gain < MIN_GAIN


def test_float_schedules_are_none_for_layers_of_codes(network: Network) -> None:
    workloads = network.rewritten.workloads
    assert {w.precision for w in workloads.values()} == {"int8"}
    assert {str(c["family"]) for c in search_space(workloads["b"], AVX512_VNNI)} == {"quads"}
    floats = replace(workloads["b"], precision="float32")
    assert "quads" not in {str(c["family"]) for c in search_space(floats, AVX512_VNNI)}
    assert floats.key != workloads["b"].key


def only_a(op: str, number: int) -> object:
    return everywhere(op, number) if op == "input" else None


def reports(where: Where = everywhere) -> list[LayerReport]:
    network = run_network(Net(chain), SHAPE, where=where)
    return [layer_report(network.lowered, name) for name in network.lowered.order]


def test_reports_say_precision_and_bytes_as_stored() -> None:
    layers = reports()
    assert [layer.precision for layer in layers] == ["int8"] * 4
    weights, scales = 3 * 32 * 9, 4 * 32
    assert layers[0].bytes_packed == weights + scales
    assert layers[0].bytes_dense == 4 * weights
    blocks = 2 * 8  # of b: groups by kept channels
    assert layers[1].bytes_packed == 32 * 32 * 9 // 4 + 4 * blocks + scales


def metadata(layers: list[LayerReport]) -> Metadata:
    return Metadata(
        model="net",
        target="llvm",
        features=(),
        precision=precision_of(layers),
        tuned=False,
        functions=(),
        layers=tuple(layers),
    )


def test_a_report_counts_the_layers_of_floats_and_says_why() -> None:
    whole = CompileReport(metadata=metadata(reports()))
    assert ", int8, untuned" in whole.headline
    assert whole.summary.endswith("2/4 convs sparse, 2 dense: 2 no zeros")
    mixed = CompileReport(metadata=metadata(reports(only_a)))  # type: ignore[arg-type]
    assert ", int8 in 1 of 4 layers, untuned" in mixed.headline
    assert mixed.summary.endswith("; 3 in float32: 3 input: not quantized")


def test_what_codes_of_a_layer_stand_for_can_be_read(network: Network) -> None:
    program = network.lowered.program
    plan = plan_memory(program)
    (number,) = [
        i for i, s in enumerate(program.steps) if s.layer == "c" and "bsr" in s.kernel.family
    ]
    step = program.steps[number]
    assert step.quantization is not None
    info = step_result(step, plan)
    assert info is not None
    assert (info.dtype, info.scale) == ("uint8", step.quantization.scale)
    assert (info.shape, info.activation) == ((1, 64, 6, 7), "relu6")
    memory = np.zeros(plan.floats, np.float32)
    codes = memory.view(np.uint8)
    codes[info.offset + info.first + 2 * info.plane + info.pitch + 3] = (
        step.quantization.zero_point + 5
    )
    value = read_result(info, memory)
    assert value.dtype == np.float32
    assert value[0, 2, 1, 3] == pytest.approx(5 * info.scale)
    assert value[0, 0, 0, 0] == pytest.approx(-info.zero_point * info.scale)


def test_steps_that_write_floats_say_nothing_of_codes(network: Network) -> None:
    last = network.lowered.program.steps[-1]
    assert last.operands[-1] == Location(space="output", index=0)
    assert last.quantization is None


@pytest.mark.parametrize("isa", [GENERIC, AVX512F])
def test_a_target_that_does_not_multiply_bytes_is_named(isa: object) -> None:
    with pytest.raises(TargetError, match=r"int8 needs .*AVX2.* has \w+ alone\.\nCompile for"):
        rewritten_network(Net(chain), SHAPE, isa=isa)  # type: ignore[arg-type]


def test_phases_can_be_looked_at() -> None:
    (imported,) = import_model(Net(chain).eval(), example_inputs=[torch.rand(SHAPE)])
    phases: list[str] = []
    rewrite_model(
        imported,
        isa=AVX512_VNNI,
        sparse="auto",
        quantize=lambda floats: floats.module,
        dump=lambda phase, script: phases.append(phase),
    )
    assert phases[-2:] == ["legalize_rest", "quantize"]
    assert "fold_input_affine" not in phases


def test_operators_of_the_fallback_may_have_several_results() -> None:
    def rows(n: Net, x: torch.Tensor) -> torch.Tensor:
        upper, lower = F.relu(n.a(x)).split(6, 2)
        return n.b(lower) - upper

    network = run_network(Net(rows), SHAPE)
    np.testing.assert_allclose(network.got[0], network.wanted[0], atol=1e-5)
    assert any(step.kernel.family == "fallback" for step in network.lowered.program.steps)
