"""Whole networks through the whole compile: equal to PyTorch eager, whatever the shapes, patterns
and instruction sets."""

import pytest
import torch
from torch import nn

from subpc.compiler.compile_model import compile

TOLERANCE = 1e-4  # of the output's range, float32


def relative_error(model: nn.Module, x: torch.Tensor, **options: object) -> float:
    """Largest error of the compiled model as a share of the output's range."""
    with torch.no_grad():
        expected = model.eval()(x)
    compiled = compile(model, x, **options)  # type: ignore[arg-type]
    return float((compiled(x) - expected).abs().max() / expected.abs().max())


def prune_blocks(weight: torch.Tensor, n: int, sparsity: float, *, uniform: bool = True) -> None:
    """Zero random 1xN blocks, the same number in each group or over the whole layer."""
    groups, channels = weight.shape[0] // n, weight.shape[1]
    scores = torch.rand(groups, channels, generator=torch.Generator().manual_seed(0))
    cut = int(sparsity * channels)
    dead = scores.argsort(1) < 0
    if uniform:
        dead.scatter_(1, scores.argsort(1)[:, :cut], True)
    else:
        dead = scores < sparsity
    weight.data[dead.repeat_interleave(n, 0)] = 0.0


# Every block size with the two kernels that have code of their own; other windows with one block
# size that divides the lanes of a vector and one that fills it. tests/schedules has the rest of the
# grid, without a compile for each.
WINDOWS = [(1, 1, 0, 1), (3, 1, 1, 1), (1, 2, 0, 1), (3, 2, 1, 1), (5, 1, 0, 1), (3, 1, 2, 2)]


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding", "dilation"),
    [
        (n, *window)
        for i, window in enumerate(WINDOWS)
        for n in ((4, 8, 16, 32) if i < 2 else (4, 16))
    ],
)
def test_sparse_convolutions_equal_pytorch(
    n: int, uniform: bool, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 64, kernel, stride, padding, dilation)
    prune_blocks(conv.weight, n, 0.6, uniform=uniform)
    x = torch.randn(2, 24, 13, 17)
    with torch.no_grad():
        expected = conv.eval()(x)
    compiled = compile(conv, x, sparse="always")
    (layer,) = compiled.report.layers
    assert layer.sparse
    assert layer.n == n
    assert layer.pattern.endswith("uniform" if uniform else "layer-wise")
    assert float((compiled(x) - expected).abs().max() / expected.abs().max()) < TOLERANCE


@pytest.mark.parametrize("target", ["llvm -mcpu=skylake-avx512", "llvm -mcpu=haswell", "llvm"])
def test_every_lane_width_equals_pytorch(target: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Hardswish(),
    )
    prune_blocks(net[4].weight, 16, 0.5)
    assert relative_error(net, torch.randn(1, 3, 45, 37), target=target) < TOLERANCE


@pytest.mark.parametrize("groups", [2, 4, 16])
def test_grouped_convolutions_equal_pytorch(groups: int) -> None:
    torch.manual_seed(0)
    assert (
        relative_error(nn.Conv2d(16, 32, 3, 2, 1, groups=groups), torch.randn(2, 16, 15, 15))
        < TOLERANCE
    )


def test_dense_weights_get_dense_kernels_with_the_reason() -> None:
    torch.manual_seed(0)
    (layer,) = compile(nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 8, 8)).report.layers
    assert not layer.sparse
    assert layer.reason == "no zeros"


def test_steps_without_weights_are_named_after_the_layer_before_them() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
    )
    (function,) = compile(net, torch.randn(1, 3, 12, 12)).functions
    assert {"0 > max_pool2d", "2 > global_pool"} < {step.layer for step in function.steps}


def test_results_are_bit_identical_for_every_thread_count() -> None:
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1)),
        torch.randn(1, 8, 33, 31),
    )
    assert torch.equal(compile(net, x, threads=1)(x), compile(net, x)(x))
