"""Exported programs of operators on codes, as PT2E writes them: read from files, weights keep their
codes and their layers' names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.errors import UnsupportedModelError
from subpc.frontend.files.safe_operators import program_operator
from subpc.frontend.from_torch.quantized import register_quantized
from subpc.frontend.import_model import import_model
from subpc.passes import ops
from subpc.passes.dataflow import constant_of
from subpc.passes.pipeline import rewrite_model
from subpc.schedules.isa import AVX512_VNNI

register_quantized()
SHAPE = (1, 4, 8, 8)
Q = torch.ops.quantized_decomposed


def codes_of(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, shape, generator=generator).to(torch.int8)


class Conv(nn.Module):
    """A layer as PT2E leaves it: its codes belong to the whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight, self.bias)


class Network(nn.Module):
    """A convolution with a scale a filter, and a matrix with one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv()
        self.register_buffer("_frozen_param0", codes_of((8, 4, 3, 3), 0))
        self.register_buffer("_scale_0", torch.linspace(0.002, 0.004, 8))
        self.register_buffer("_zero_point_0", torch.zeros(8, dtype=torch.int64))
        self.register_buffer("_frozen_param1", codes_of((5, 8), 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = (0, 255, torch.uint8)
        x = Q.dequantize_per_tensor(
            Q.quantize_per_tensor(x, 0.0213, 110, *whole), 0.0213, 110, *whole
        )
        weight = Q.dequantize_per_channel(
            self._frozen_param0, self._scale_0, self._zero_point_0, 0, -128, 127, torch.int8
        )
        x = self.stem(x, weight).relu().mean((2, 3))
        x = Q.dequantize_per_tensor(Q.quantize_per_tensor(x, 0.0107, 0, *whole), 0.0107, 0, *whole)
        matrix = Q.dequantize_per_tensor(self._frozen_param1, 0.003, 0, -128, 127, torch.int8)
        return F.linear(x, matrix)


def test_codes_of_a_saved_program_are_kept_bit_for_bit(tmp_path: Path) -> None:
    net = Network().eval()
    torch.export.save(torch.export.export(net, (torch.zeros(SHAPE),)), tmp_path / "net.pt2")
    (imported,) = import_model(tmp_path / "net.pt2")
    rewritten = rewrite_model(imported, isa=AVX512_VNNI, sparse="auto")
    assert [d.precision for d in rewritten.decisions.values()] == ["int8", "int8"]
    first, second = (call for _, call in rewritten.graph.calls(ops.CONV2D, ops.LINEAR))
    assert ops.attributes(first)["name"] == "stem"
    for call, codes, scales in (
        (first, net._frozen_param0, net._scale_0.numpy()),
        (second, net._frozen_param1, np.full(5, 0.003)),
    ):
        np.testing.assert_array_equal(constant_of(call.args[1]), codes.numpy())
        np.testing.assert_allclose(ops.attributes(call)["weight_scales"], scales, rtol=1e-6)


def test_files_may_call_operators_on_codes_and_no_others_of_their_kind() -> None:
    assert program_operator("torch.ops.quantized_decomposed.quantize_per_tensor.default")
    assert program_operator("torch.ops.quantized_decomposed.dequantize_per_channel.default")
    assert not program_operator("torch.ops.quantized_decomposed.load.default")
    assert not program_operator("torch.ops.quantized.linear_unpack.default")


def test_scales_that_depend_on_the_input_are_refused() -> None:
    """As dynamic quantization has them."""

    class Dynamic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            limits = (0, 255, torch.uint8)
            scale, zero = Q.choose_qparams.tensor(x, 0, 255, 1e-5, torch.uint8)
            return Q.dequantize_per_tensor.tensor(
                Q.quantize_per_tensor.tensor(x, scale, zero, *limits), scale, zero, *limits
            )

    with pytest.raises(UnsupportedModelError, match=r"3 unsupported operators: .*choose_qparams"):
        import_model(Dynamic().eval(), example_inputs=torch.zeros(SHAPE))
