"""Codes that a file has of weights reach the layers that compute with whole numbers exactly as they
are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import subpc
from subpc.algorithms.file_format.compressed_file import CompressedFile, save_compressed
from subpc.algorithms.numerics.quantizers import (
    Quantized,
    codes_of,
    quantize_ternary,
    quantize_uniform,
)
from subpc.calibration.best import choose_calibration
from subpc.calibration.interpret import Interpreter
from subpc.calibration.quantize import quantize
from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.dataflow import constant_of
from subpc.passes.offset_codes import offset_codes
from subpc.passes.pipeline import Rewritten, rewrite_model
from subpc.schedules.isa import AVX512_VNNI

ARCH = "tests.passes.test_keep_codes:network"
SHAPE = (1, 4, 12, 12)


class Network(nn.Module):
    """Layers whose codes take every way: batch norms behind them, groups, some taps unread, a
    transposed convolution, rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 8, 3, padding=12, dilation=12)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.turned = nn.ConvTranspose2d(6, 6, 3, 1, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wide(self.depthwise(self.first(x)).relu()).relu()
        x = self.turned(self.up(self.down(x).relu()).relu()).relu()
        result: torch.Tensor = self.fc(x.mean((2, 3)))
        return result


def network() -> nn.Module:
    torch.manual_seed(0)
    net = Network()
    with torch.no_grad():
        net.first[1].weight.uniform_(-1.5, 1.5)  # some scales are negative
        net.first[1].running_var.uniform_(0.5, 2.0)
    return net.eval()


def layers_as_integers(path: Path) -> tuple[Rewritten, dict[str, np.ndarray]]:
    """The network in int8, and the weights of its layers, those of parts beside each other."""
    (imported,) = import_model(path, arch=ARCH)
    x = torch.rand(8, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    rewritten = rewrite_model(
        imported, isa=AVX512_VNNI, sparse="auto", quantize=lambda network: quantize(network, x)
    )
    found = {
        ops.layer_of(call): np.asarray(constant_of(call.args[1]))
        for _, call in rewritten.graph.calls(ops.CONV2D, ops.LINEAR)
    }
    return rewritten, found


def whole(packed: Quantized) -> np.ndarray:
    """The codes of a file as multiples of a step."""
    codes = packed.codes.numpy().astype(int)
    return codes - packed.most // 2 if packed.has_zero else 2 * codes - packed.most


def saved(net: nn.Module, packed: dict[str, Quantized], path: Path) -> Path:
    state = net.state_dict() | {f"{name}.weight": q.dequantize() for name, q in packed.items()}
    save_compressed(
        path, CompressedFile(arch=ARCH, state_dict=state, packed=packed, input_shape=SHAPE)
    )
    return path


LAYERS = ("first.0", "depthwise", "down", "fc")


def quantized(bits: int, *, has_zero: bool = False) -> dict[str, Quantized]:
    """All layers of the network but the transposed ones, which no method quantizes."""
    return {
        name: rounded(part.weight.detach(), bits, has_zero=has_zero)
        for name, part in network().named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    }


def rounded(weight: torch.Tensor, bits: int, *, has_zero: bool) -> Quantized:
    if bits == 2:
        return quantize_ternary(weight, per_channel=True)
    if not has_zero:
        return quantize_uniform(weight, bits, per_channel=True)
    scale = weight.abs().flatten(1).amax(1, keepdim=True)
    codes = codes_of(weight.flatten(1), scale, bits, has_zero=True).view_as(weight)
    return Quantized(codes=codes, scale=scale[:, 0], bits=bits, has_zero=True)


@pytest.mark.parametrize(
    ("bits", "has_zero"), [(2, True), (3, False), (6, False), (7, False), (5, True), (8, True)]
)
def test_a_compressed_file_keeps_its_codes_bit_for_bit(
    bits: int, has_zero: bool, tmp_path: Path
) -> None:
    packed = quantized(bits, has_zero=has_zero)
    rewritten, found = layers_as_integers(saved(network(), packed, tmp_path / "m.pt"))
    assert {name: d.precision for name, d in rewritten.decisions.items() if "/" not in name} == (
        dict.fromkeys([*packed, "turned"], "int8")
    )
    for name in LAYERS:
        np.testing.assert_array_equal(found[name], whole(packed[name]))
    np.testing.assert_array_equal(found["wide"], whole(packed["wide"])[:, :, 1:2, 1:2])


def test_scales_hold_what_was_folded_into_the_layer(tmp_path: Path) -> None:
    packed = quantized(6)
    net = network()
    rewritten, _ = layers_as_integers(saved(net, packed, tmp_path / "m.pt"))
    norm = net.first[1]
    factors = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    (call,) = (
        call
        for _, call in rewritten.graph.calls(ops.CONV2D)
        if ops.attributes(call)["name"] == "first.0"
    )
    scales = ops.attributes(call)["weight_scales"]
    np.testing.assert_allclose(
        scales, (factors * packed["first.0"].scale / 63).detach().numpy(), rtol=1e-5
    )


def test_codes_of_eight_bits_reach_the_kernels_bit_for_bit(tmp_path: Path) -> None:
    """Odd numbers up to 255: twice what eight bits hold, and one: sums of pixels make it good."""
    packed = quantized(8)
    rewritten, _ = layers_as_integers(saved(network(), packed, tmp_path / "m.pt"))
    parts = {
        ops.attributes(call)["name"]: call
        for _, call in rewritten.graph.calls(ops.CONV2D, ops.LINEAR)
    }
    for name in (*LAYERS, "wide"):
        codes = whole(packed[name])
        codes = codes[:, :, 1:2, 1:2] if name == "wide" else codes
        assert np.abs(codes).max() > 127
        main, sums, spread = (parts[f"{name}/{i}"] for i in range(3))
        eight, ones, offsets = (constant_of(part.args[1]) for part in (main, sums, spread))
        assert (eight.dtype, ones.dtype, set(ones.ravel())) == ("int8", "int8", {1})
        np.testing.assert_array_equal(2 * eight.astype(int) + 1, codes)
        # The offset is half the step that the codes are multiplied by.
        steps = np.asarray(ops.attributes(main)["weight_scales"], np.float32)
        np.testing.assert_array_equal(2 * offsets.ravel(), steps)
        # One of its two parts is never rounded: their sum is.
        assert ops.attributes(sums)["dtype"] == "float32"
        assert ops.attributes(main)["dtype"] == ("float32" if name == "fc" else "uint8")


@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_of_eight_bits_computes_what_its_codes_mean(batch: int, tmp_path: Path) -> None:
    """In float64, from the same rounded activations."""
    file = saved(network(), quantized(8), tmp_path / "m.pt")
    x = torch.rand(8, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    shape = (batch, *SHAPE[1:])
    (imported,) = import_model(file, arch=ARCH, shapes=[shape])
    rounded = []
    rewrite_model(
        imported,
        isa=AVX512_VNNI,
        sparse="auto",
        quantize=lambda network: (
            rounded.append(choose_calibration(network, x).calibrated.rounded()) or rounded[0]
        ),
    )
    (expected,) = Interpreter(rounded[0], dtype=torch.float64).run(x[:batch])
    compiled = subpc.compile(file, arch=ARCH, shapes=[shape], precision="int8", calibration=x)
    assert {layer.precision for layer in compiled.report.layers} == {"int8"}
    torch.testing.assert_close(compiled(x[:batch]).double(), expected, rtol=1e-5, atol=1e-6)


SPANS = {
    "odd": (np.arange(-255, 256, 2), 2, 1),
    "unsigned, less a zero point": (np.arange(-90, 166), 1, 38),
    "eight bits": (np.arange(-128, 128), 1, 0),
    "nothing but zeros": (np.zeros(4, int), 1, 0),
    "a step": (np.array([300, 299]), 1, 173),
}


@pytest.mark.parametrize("case", SPANS)
def test_codes_are_steps_and_an_offset(case: str) -> None:
    codes, step, offset = SPANS[case]
    scales = np.array([0.25, -0.5])
    found = offset_codes(np.stack([codes, codes[::-1]]), scales)
    assert found is not None
    np.testing.assert_array_equal(step * found.codes[0].astype(int) + offset, codes)
    np.testing.assert_array_equal(found.codes[1], found.codes[0][::-1])
    np.testing.assert_array_equal(found.scales, step * scales)
    np.testing.assert_array_equal(found.offsets, offset * scales)


@pytest.mark.parametrize("codes", [[-255, 256], [-256, 256, 1], [-257, 257]], ids=str)
def test_codes_of_more_than_eight_bits_are_none(codes: list[int]) -> None:
    assert offset_codes(np.array([codes]), np.ones(1)) is None


def test_without_int8_the_same_file_computes_floats(tmp_path: Path) -> None:
    (imported,) = import_model(saved(network(), quantized(3), tmp_path / "m.pt"), arch=ARCH)
    decisions = rewrite_model(imported, isa=AVX512_VNNI, sparse="auto").decisions
    assert {decision.precision for decision in decisions.values()} == {"float32"}
    assert not any(decision.why_float for decision in decisions.values())
