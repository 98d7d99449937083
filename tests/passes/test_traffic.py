"""Bytes a step: what `subpc profile` divides by the time."""

import pytest
import torch
from torch import nn

from subpc.compiler.compile_model import compile
from subpc.schedules.block_conv import MAX_PREFETCH_CHANNELS
from tests.passes.test_end_to_end import prune_blocks


def traffic(net: nn.Module, *shape: int) -> int:
    """Bytes of the one step that computes; copies into and out of the frames are steps of their
    own."""
    (function,) = compile(net, shapes=[shape]).functions
    (step,) = [s for s in function.steps if s.flops]
    return step.bytes


def test_a_linear_layer_reads_its_weights_once() -> None:
    inputs, outputs = 64, 96
    assert traffic(nn.Linear(inputs, outputs), 3, inputs) == 4 * (
        3 * inputs + outputs * inputs + outputs + 3 * outputs
    )


@pytest.mark.parametrize(("sparsity", "kept"), [(0.0, 32), (0.5, 16), (0.75, 8)])
def test_a_sparse_layer_reads_only_the_weights_that_are_left(sparsity: float, kept: int) -> None:
    conv = nn.Conv2d(32, 32, 1)
    prune_blocks(conv.weight, 16, sparsity)
    pixels = 16 * 16
    tensors = 2 * 4 * 32 * pixels
    weights, index, bias = (
        4 * 32 * kept,
        4 * (2 * kept + MAX_PREFETCH_CHANNELS) if sparsity else 0,
        4 * 32,
    )
    assert traffic(conv, 1, 32, 16, 16) == tensors + weights + index + bias


def test_zeros_between_the_rows_do_not_count() -> None:
    """A 3x3 convolution on 7x7 planes: its frames are several times as large as the pixels in
    them."""
    pixels, mask = 7 * 7, 4 * 256
    assert (
        traffic(nn.Conv2d(8, 8, 3, padding=1), 1, 8, 7, 7)
        <= 4 * (2 * 8 * pixels + 8 * 8 * 9 + 8) + mask
    )


class Joined(nn.Module):
    """Two convolutions side by side, written into one concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = (
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 24, 1),
            nn.Conv2d(32, 8, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([self.left(x), self.right(x)], 1))


def test_a_slice_of_a_concatenation_counts_with_its_own_channels() -> None:
    (function,) = compile(Joined(), shapes=[(1, 8, 16, 16)]).functions
    left, right = (
        next(s.bytes for s in function.steps if s.layer == name) for name in ("left", "right")
    )
    pixels = 4 * 16 * 16
    assert right - left == (24 - 8) * pixels + 4 * (24 - 8) * (8 + 1)
