"""Lowering of convolutions of codes for each instruction set: how many products may meet in 16 bits
follows from the layer's codes, and what is computed is the same."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from tvm import relax

from subpc.passes import ops
from subpc.schedules.isa import AVX2, AVX512, AVX512_VNNI, VectorIsa
from subpc.schedules.quad_conv import QuadConv
from tests.passes.small_graphs import Emit, lowered, run
from tests.passes.test_lower_codes import A, B, check_codes, dequantize, floats, layer, quantize
from tests.schedules.harness import cpu_supports

ISAS = {isa.name: isa for isa in (AVX512_VNNI, AVX512, AVX2)}
FILTERS = 32


def convolution(codes: np.ndarray, isa: VectorIsa) -> QuadConv:
    """The kernel of a layer of these codes (filters, channels, kh, kw), after its results were
    found right."""
    x = floats(2, codes.shape[1], 6, 7)
    scales = np.random.default_rng(1).uniform(0.2, 0.6, FILTERS) / np.abs(codes).max()
    reach = codes.shape[2] // 2

    def network(emit: Emit, x: relax.Var) -> relax.Expr:
        bias = relax.const(np.zeros(FILTERS, "float32"))
        args = [emit(quantize(x, A)), relax.const(codes), bias]
        window = {"strides": [1, 1], "padding": [reach] * 4, "dilation": [1, 1], "groups": 1}
        conv = layer(ops.CONV2D, args, scales, out_shape=[2, FILTERS, 6, 7], **window)
        return dequantize(emit(conv), B)

    program, weights = lowered(network, [x], isa)
    (got,) = run(program, weights, [x], isa)
    filters = torch.from_numpy(codes * scales.reshape(-1, 1, 1, 1))
    planes = torch.from_numpy(A.values(A.codes(x)))
    check_codes(got, functional.conv2d(planes, filters, padding=reach).relu().numpy(), B)
    (kernel,) = [step.kernel for step in program.calls if isinstance(step.kernel, QuadConv)]
    return kernel


def random_codes(largest: int, channels: int, kernel: int) -> np.ndarray:
    """All as large; those of one filter of the same sign."""
    size = (FILTERS, channels, kernel, kernel)
    codes = np.random.default_rng(0).choice([-largest, largest], size).astype("int8")
    codes[1] = -largest
    return codes


@pytest.mark.parametrize(
    ("name", "largest", "steps"),
    [
        *((AVX512.name, *case) for case in [(127, 0), (64, 1), (32, 2), (16, 4), (3, 18), (1, 36)]),
        *((AVX2.name, *case) for case in [(64, 1), (3, 18)]),
        (AVX512_VNNI.name, 1, 36),
    ],
)
def test_codes_decide_how_many_steps_meet_in_16_bits(name: str, largest: int, steps: int) -> None:
    isa = ISAS[name]
    if not cpu_supports(isa):
        pytest.skip(f"this CPU has no {name}")
    kernel = convolution(random_codes(largest, 10, 3), isa)
    assert kernel.narrow is None if isa.dot == "vnni" else kernel.narrow == steps


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize(("largest", "steps"), [(127, 0), (1, 36)])
def test_channels_that_a_sparse_group_keeps_meet(largest: int, steps: int, name: str) -> None:
    isa = ISAS[name]
    if not cpu_supports(isa):
        pytest.skip(f"this CPU has no {name}")
    codes = random_codes(largest, 48, 3)
    codes[:16, 3:41] = 0
    codes[16:, ::2] = 0
    kernel = convolution(codes, isa)
    assert kernel.sparse
    assert kernel.narrow is None if isa.dot == "vnni" else kernel.narrow == steps
