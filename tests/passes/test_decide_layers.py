"""One decision a layer, each with its reason: what users read when a layer stayed dense."""

import pytest
import torch
from torch import nn

from subpc.errors import ConfigError
from subpc.passes.dataflow import Dataflow
from subpc.passes.decide_layers import MIN_GAIN, Decision, decide_layers
from subpc.schedules.isa import AVX512
from tests.passes.evaluate import stages
from tests.passes.test_end_to_end import prune_blocks


def pruned(conv: nn.Conv2d, n: int, sparsity: float) -> nn.Conv2d:
    prune_blocks(conv.weight, n, sparsity)
    return conv


def decide(
    layer: nn.Module, shape: tuple[int, ...] = (1, 32, 8, 8), sparse: str = "auto"
) -> Decision:
    _, module = stages(nn.Sequential(layer), shape, until="fuse_epilogue")
    (decision,) = decide_layers(Dataflow(module["main"]), AVX512, sparse).values()
    assert decision.layer == "0"
    return decision


def test_a_pattern_that_pays_becomes_sparse() -> None:
    decision = decide(pruned(nn.Conv2d(32, 32, 3), 16, 0.75))
    assert (decision.kernel, decision.reason) == ("bsr_conv", "")
    assert decision.pattern is not None
    assert decision.pattern is decision.found
    assert decision.zeros == 0.75
    assert decision.gain > 2.5


def scattered(share: float) -> nn.Conv2d:
    conv = nn.Conv2d(32, 32, 3)
    conv.weight.data[
        torch.rand(conv.weight.shape, generator=torch.Generator().manual_seed(0)) < share
    ] = 0
    return conv


def every_other_filter() -> nn.Conv2d:
    conv = nn.Conv2d(32, 6, 1)
    conv.weight.data[::2] = 0
    return conv


DENSE = {
    "no zeros": nn.Conv2d(32, 32, 3),
    "no 1xN blocks: 50% of the weights are zero, but not in blocks of 4 to 32 filters": scattered(
        0.5
    ),
    "dense: 3% of the weights are zero": scattered(0.03),
    "channels: 6 filters are not a multiple of 4": every_other_filter(),
    "depthwise: one input channel a filter leaves no block to skip": nn.Conv2d(
        32, 32, 3, groups=32
    ),
    "grouped: 1xN blocks are defined for groups = 1": nn.Conv2d(32, 32, 3, groups=4),
    "below threshold: 1x16 uniform at 3% would gain": pruned(nn.Conv2d(32, 32, 3), 16, 0.05),
}


@pytest.mark.parametrize("reason", DENSE)
def test_every_reason_to_stay_dense(reason: str) -> None:
    decision = decide(DENSE[reason])
    assert decision.pattern is None
    assert decision.reason.startswith(reason)
    assert decision.gain == 1.0
    assert (decision.found is not None) == reason.startswith("below threshold")


def test_a_single_pixel_is_a_matrix_product() -> None:
    decision = decide(pruned(nn.Conv2d(32, 32, 1), 16, 0.75), (1, 32, 1, 1))
    assert decision.reason == "single pixel: reading the weights limits it, not arithmetic"
    assert decision.kernel == "linear"


def test_fully_connected_layers_stay_dense() -> None:
    decision = decide(nn.Linear(32, 8), (1, 32))
    assert decision.reason == "fully connected: reading the weights limits it, not arithmetic"


def test_modes() -> None:
    conv = pruned(nn.Conv2d(32, 32, 3), 16, 0.75)
    assert decide(conv, sparse="off").reason == "sparse kernels switched off"
    assert decide(pruned(nn.Conv2d(32, 32, 3), 16, 0.05), sparse="always").pattern is not None
    with pytest.raises(ConfigError, match="accepted: auto, off, always"):
        decide(conv, sparse="sometimes")


def test_the_gain_grows_with_sparsity() -> None:
    decisions = [decide(pruned(nn.Conv2d(32, 32, 1), 16, cut / 32)) for cut in range(0, 32, 4)]
    gains = [decision.gain for decision in decisions]
    assert gains == sorted(gains)
    assert [decision.pattern is not None for decision in decisions] == [
        gain >= MIN_GAIN for gain in gains
    ]
    assert gains[-1] > 4


@pytest.mark.parametrize("n", [4, 8])
def test_sorting_the_pixels_of_a_stride_counts_against_sparse(n: int) -> None:
    """With few filters a layer, the phase planes cost as much as what is skipped; channels in the
    lanes (N=16) need none."""
    narrow = decide(pruned(nn.Conv2d(32, 16, (1, 3), stride=2, padding=(0, 1)), n, 0.25))
    assert narrow.reason.startswith("below threshold")
    assert (
        decide(pruned(nn.Conv2d(32, 16, (1, 3), stride=2, padding=(0, 1)), 16, 0.25)).pattern
        is not None
    )
    assert decide(pruned(nn.Conv2d(32, 16, (1, 3), padding=(0, 1)), n, 0.25)).pattern is not None


@pytest.mark.parametrize("n", [4, 8])
def test_blocks_narrower_than_a_vector_have_to_beat_winograd(n: int) -> None:
    """A dense 3x3 convolution needs 16 multiplications instead of 36: half of the blocks, with
    pixels in the lanes, are not faster."""
    assert decide(
        pruned(nn.Conv2d(64, 64, 3, padding=1), n, 0.5), (1, 64, 56, 56)
    ).reason.startswith("below threshold")
    assert (
        decide(pruned(nn.Conv2d(64, 64, 3, padding=1), n, 0.75), (1, 64, 56, 56)).pattern
        is not None
    )
    assert (
        decide(pruned(nn.Conv2d(64, 64, 3, padding=1), 16, 0.5), (1, 64, 56, 56)).pattern
        is not None
    )
