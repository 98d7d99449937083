"""Pairs of quantize and dequantize become one rounding each, in front of what layers can do
themselves; the network computes what PyTorch computes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.compiler.compile_model import compile
from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.quantized import register_quantized
from subpc.frontend.import_model import import_model
from subpc.passes.pipeline import rewrite_model
from subpc.schedules.isa import AVX512_VNNI, GENERIC
from tests.passes.evaluate import operators
from tests.passes.integer_meanings import evaluate_exactly

register_quantized()
SHAPE = (1, 4, 8, 8)
Q = torch.ops.quantized_decomposed
A, B = (0.0231, 117), (0.0417, 90)
Forward = Callable[["Layers", torch.Tensor], torch.Tensor]


def codes(
    x: torch.Tensor,
    quantization: tuple[float, int],
    dtype: torch.dtype = torch.uint8,
    limits: tuple[int, int] = (0, 255),
) -> torch.Tensor:
    result: torch.Tensor = Q.quantize_per_tensor(x, *quantization, *limits, dtype)
    return result


def values(
    x: torch.Tensor,
    quantization: tuple[float, int],
    dtype: torch.dtype = torch.uint8,
    limits: tuple[int, int] = (0, 255),
) -> torch.Tensor:
    result: torch.Tensor = Q.dequantize_per_tensor(x, *quantization, *limits, dtype)
    return result


def rounded(x: torch.Tensor, quantization: tuple[float, int] = A) -> torch.Tensor:
    return values(codes(x, quantization), quantization)


class Layers(nn.Module):
    """Layers, of quantized weights, for a forward pass that each test writes itself."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = forward
        for name, out, each in (("first", 8, 4), ("second", 4, 8)):
            weight = torch.randint(-127, 128, (out, each, 3, 3), generator=generator)
            self.register_buffer(f"{name}_codes", weight.to(torch.int8))
            scales = torch.rand(out, generator=generator) * 0.002 + 0.001
            self.register_buffer(f"{name}_scales", scales)
            self.register_buffer(f"{name}_zeros", torch.zeros(out, dtype=torch.int64))

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        stored = (getattr(self, f"{name}_{part}") for part in ("codes", "scales", "zeros"))
        weight = Q.dequantize_per_channel(*stored, 0, -128, 127, torch.int8)
        return F.conv2d(x, weight, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def checked(forward: Forward) -> list[str]:
    """The operators of the network of codes, which computes what PyTorch computes, as does the one
    of floats; sums on the edge between two codes may go either way."""
    net = Layers(forward).eval()
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * 2
    (imported,) = import_model(net, example_inputs=x)
    expected = net(x)
    assert expected.unique().numel() > 8
    whole, floats = (
        rewrite_model(imported, isa=isa, sparse="auto").module for isa in (AVX512_VNNI, GENERIC)
    )
    for module in (whole, floats):
        (found,) = evaluate_exactly(module, x)
        near = (found - expected).abs() < 1e-4
        assert near.double().mean() > 0.98
        assert (found - expected).abs().max() < 1.01 * B[0]
    return [name.removeprefix("subpc.") for name in operators(whole)]


# What the first network's layers are, between what makes codes and what makes floats of them.
CONV = ["elementwise", "conv2d", "elementwise"]


def test_a_layer_between_roundings_is_one_operator() -> None:
    assert checked(lambda net, x: rounded(net.conv("first", rounded(x)), B)) == CONV


def test_rounding_twice_is_rounding_once() -> None:
    assert checked(lambda net, x: rounded(rounded(net.conv("first", rounded(x)), B), B)) == CONV


def test_a_relu_of_what_is_never_negative_is_left_out() -> None:
    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        return rounded(net.conv("first", rounded(x)), (0.0417, 0)).relu()

    assert checked(forward) == CONV


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-1.0, 1.0)], ids=str)
def test_a_clip_between_equal_roundings_goes_into_the_layer(bounds: tuple[float, float]) -> None:
    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        return rounded(rounded(net.conv("first", rounded(x)), B).clamp(*bounds), B)

    assert checked(forward) == CONV


def test_a_clip_between_other_roundings_stays_between_them() -> None:
    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        return rounded(rounded(net.conv("first", rounded(x)), A).clamp(-0.5, 0.5), B)

    assert checked(forward) == ["elementwise", "conv2d", "elementwise", "elementwise"]


def test_a_relu_between_roundings_goes_into_the_layer() -> None:
    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        return rounded(net.conv("second", rounded(net.conv("first", rounded(x)), B).relu()), B)

    assert checked(forward) == ["elementwise", "conv2d", "conv2d", "elementwise"]


def test_a_relu_of_a_value_that_others_read_stays() -> None:
    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        y = rounded(net.conv("first", rounded(x)), B)
        return rounded(net.conv("second", y) + net.conv("second", y.relu()), B)

    assert checked(forward).count("elementwise") > 2


def test_codes_without_all_values_of_their_type_are_clipped() -> None:
    """As for CPUs whose sums of products of bytes saturate: activations of seven bits."""
    few = (torch.uint8, (0, 127))

    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        y = values(codes(x, (0.0231, 60), *few), (0.0231, 60), *few)
        return rounded(net.conv("first", y), B)

    assert checked(forward) == CONV


def test_codes_with_a_sign_are_codes() -> None:
    signed = (torch.int8, (-128, 127))

    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        y = values(codes(x, (0.0231, -11), *signed), (0.0231, -11), *signed)
        return values(codes(net.conv("first", y), (0.0417, 5), *signed), (0.0417, 5), *signed)

    assert checked(forward) == CONV


MOVES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "reshape": lambda q: q.reshape(1, 4, 4, 16),
    "transpose": lambda q: q.transpose(2, 3),
    "slice": lambda q: q[:, 1:3],
    "concat": lambda q: torch.cat([q, q.flip(2)], 1),
    "pad": lambda q: F.pad(q, (1, 0, 2, 1), value=90),
    "pool": lambda q: q[:, :, ::2],
}


@pytest.mark.parametrize("move", MOVES)
def test_moving_codes_is_moving_what_they_stand_for(move: str) -> None:
    assert "relax.quantize" not in checked(lambda net, x: values(MOVES[move](codes(x, A)), A))


def test_a_shuffle_of_channels_moves_codes() -> None:
    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        x = rounded(x).view(1, 2, 2, 8, 8).transpose(1, 2).reshape(SHAPE)
        return rounded(net.conv("first", x), B)

    assert checked(forward) == ["elementwise", "channels", "conv2d", "elementwise"]


@pytest.mark.parametrize(
    ("fill", "last"),
    [(0.0, ["conv2d", "elementwise"]), (0.01, ["elementwise", "elementwise"])],
    ids=["on the grid", "between its values"],
)
def test_what_a_pad_puts_around_values_may_be_a_value_of_codes(
    fill: float, last: list[str]
) -> None:
    """If not, the layer behind it computes floats, and its result is rounded on its own."""

    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(rounded(x), (0, 1, 0, 1), value=fill).flip(3)
        return rounded(net.conv("first", x), B)

    assert checked(forward)[-2:] == last


def test_codes_that_are_read_as_others_stand_for_others() -> None:
    """The same codes by another scale are no rounding, and are computed as they stand."""
    checked(lambda net, x: values(codes(x, A), (0.0417, 117)))


def test_codes_as_an_input_are_codes_at_once() -> None:
    class Given(Layers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return rounded(self.conv("first", values(x, A)), B)

    net = Given(lambda net, x: x).eval()
    x = torch.randint(0, 256, SHAPE, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (imported,) = import_model(net, example_inputs=x)
    rewritten = rewrite_model(imported, isa=AVX512_VNNI, sparse="auto")
    assert [decision.precision for decision in rewritten.decisions.values()] == ["int8"]
    (found,) = evaluate_exactly(rewritten.module, x)
    assert (found - net(x)).abs().max() < 1e-4


def test_codes_of_two_bytes_are_refused() -> None:
    wide = (torch.int16, (-32768, 32767))

    def forward(net: Layers, x: torch.Tensor) -> torch.Tensor:
        return values(codes(x, (0.001, 0), *wide), (0.001, 0), *wide)

    with pytest.raises(
        UnsupportedModelError, match=r"codes of torch\.int16; accepted: torch\.uint8"
    ):
        import_model(Layers(forward).eval(), example_inputs=torch.zeros(SHAPE))


def test_rounding_without_instructions_for_bytes() -> None:
    """Halves go to the even neighbour, what is not a number becomes zero, the rest is clipped."""
    step = (0.5, 3)
    net = Layers(lambda net, x: rounded(x, step)).eval()
    x = (torch.arange(256).reshape(SHAPE).float() - 40) / 4
    x.view(-1)[[0, 1, 2]] = torch.tensor([np.nan, np.inf, -np.inf])
    expected = (torch.round(x / 0.5) + 3).clamp(0, 255).nan_to_num(3.0)
    found = compile(net, x, target="llvm -mcpu=x86-64")(x)
    np.testing.assert_array_equal(found, (expected - 3) * 0.5)
