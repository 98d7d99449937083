"""One small kernel of every family as TVMScript: a change of the generated loops shows as a
difference in review.

After an intended change, write the files again with one command and read the difference:

    UPDATE_GOLDEN=1 python -m pytest -q tests/schedules/test_golden.py
"""

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from subpc.frontend.import_model import import_model
from subpc.passes.pipeline import lower_model, rewrite_model
from subpc.passes.program import WeightStore
from subpc.schedules.channel_copy import ChannelCopy
from subpc.schedules.flat_conv import FlatConv
from subpc.schedules.flat_tile import FlatTile
from subpc.schedules.grouped_conv import GroupedConv
from subpc.schedules.int8_grouped import Int8Grouped
from subpc.schedules.int8_linear import Int8Linear
from subpc.schedules.isa import AVX512, AVX512_VNNI
from subpc.schedules.joined import Joined
from subpc.schedules.kernel import Kernel
from subpc.schedules.layout import TensorLayout, halo_frame
from subpc.schedules.operand import Operand
from subpc.schedules.quad_conv import QuadConv
from subpc.schedules.quad_tile import QuadTile
from subpc.schedules.quantization import CODES
from subpc.schedules.requantize import Requantize
from subpc.schedules.winograd import WinogradConv
from subpc.schedules.winograd_tile import WinogradTile

GOLDEN = Path(__file__).parent / "golden"
COMMAND = "UPDATE_GOLDEN=1 python -m pytest -q tests/schedules/test_golden.py"


class Calls(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def pruned(conv: nn.Conv2d, channels: slice) -> nn.Conv2d:
    conv.weight.data[:, channels] = 0
    return conv


# family -> a network that has a kernel of it, and the shape of its input
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense_conv_f32": (lambda: nn.Conv2d(3, 8, 1), (1, 3, 4, 6)),
    "bsr_conv_f32": (lambda: pruned(nn.Conv2d(4, 8, 1), slice(0, 2)), (1, 4, 4, 6)),
    "dense_direct_conv_f32": (lambda: nn.Conv2d(3, 16, (1, 2)), (1, 3, 1, 4)),
    "bsr_direct_conv_f32": (lambda: pruned(nn.Conv2d(4, 16, (1, 2)), slice(0, 2)), (1, 4, 1, 4)),
    "depthwise_conv_f32": (lambda: nn.Conv2d(2, 2, (1, 2), groups=2), (1, 2, 4, 6)),
    "grouped_conv_f32": (lambda: nn.Conv2d(4, 4, (1, 2), groups=2), (1, 4, 4, 6)),
    "phase_split": (lambda: nn.Conv2d(3, 8, 1, 2), (1, 3, 4, 6)),
    "relayout": (lambda: nn.Conv2d(3, 8, 1), (1, 3, 4, 6)),
    "linear_f32": (lambda: nn.Linear(5, 7), (2, 5)),
    "max_pool2d": (lambda: nn.MaxPool2d(2, 1, 1), (1, 2, 3, 4)),
    "avg_pool2d": (lambda: nn.AvgPool2d(2, 1, 1), (1, 2, 3, 4)),
    "global_pool": (lambda: nn.AdaptiveAvgPool2d(1), (1, 2, 3, 4)),
    "elementwise": (lambda: Calls(lambda x: (x * 2 + 1).relu()), (1, 2, 3, 4)),
    "interleave": (lambda: nn.ConvTranspose2d(4, 4, 2, 2), (1, 4, 3, 4)),
    "fallback": (lambda: Calls(lambda x: x.sum(1)), (2, 3, 4)),
}


def pair() -> Joined:
    """A 1x1 convolution and a depthwise one, in two bands."""
    planes = TensorLayout(batch=1, channels=2, frame=halo_frame(4, 6, 1))
    options = {"sparse": False, "uniform": True, "bounds": ()}
    tile = FlatTile(rows=2, vectors=1, blocks=1, pixels_outer=False)
    first = FlatConv(
        source=planes, phases=1, out=planes, taps=(0,), group=2, kept=2, tile=tile, **options
    )  # type: ignore[arg-type]
    second = GroupedConv(source=planes, out=planes, groups=2, kernel=(3, 1), padding=(1, 0))
    return Joined(stages=(first, second), kept=(False, True), bands=2)


def small_winograd() -> WinogradConv:
    """Two Winograd tiles of a dense 3x3 convolution."""
    planes = TensorLayout(batch=1, channels=1, frame=halo_frame(2, 4, 1))
    tile = WinogradTile(rows=1, columns=2, vectors=1, blocks=1, bands=1, pixels_outer=True)
    return WinogradConv(
        source=planes,
        out=replace(planes, channels=16),
        padding=(1, 1),
        group=16,
        kept=1,
        sparse=False,
        uniform=True,
        tile=tile,
    )


def small_quads() -> QuadConv:
    """A sparse 1x1 convolution of codes: two filters that keep one quad of channels."""
    planes = TensorLayout(batch=1, channels=6, frame=halo_frame(4, 6, 0, CODES), dtype=CODES)
    tile = QuadTile(rows=2, vectors=1, band=1, blocks=1)
    return QuadConv(
        source=planes,
        out=replace(planes, channels=2),
        phases=1,
        taps=(0,),
        quads=1,
        group=2,
        kept=4,
        sparse=True,
        uniform=True,
        epilogue=Requantize(codes=True),
        tile=tile,
    )


def small_grouped() -> Int8Grouped:
    """A depthwise convolution of codes with two taps."""
    planes = TensorLayout(batch=1, channels=2, frame=halo_frame(4, 6, 0, CODES), dtype=CODES)
    return Int8Grouped(
        source=planes,
        out=replace(planes, frame=halo_frame(4, 5, 0, CODES)),
        groups=2,
        kernel=(1, 2),
        padding=(0, 0),
        wide=False,
        epilogue=Requantize(codes=True),
    )


# Kernels that no network here reaches.
ALONE: dict[str, Kernel] = {
    "channel_copy": ChannelCopy(
        batch=1, frame=halo_frame(3, 4, 1), source_channels=2, out_channels=3, count=2, out_start=1
    ),
    "joined_dense_conv_depthwise_conv": pair(),
    "dense_winograd_conv_f32": small_winograd(),
    "bsr_conv_i8": small_quads(),
    "depthwise_conv_i8": small_grouped(),
    "linear_i8": Int8Linear(rows=1, inputs=5, outputs=7, epilogue=Requantize(codes=True)),
}


@functools.cache
def kernels(family: str) -> list[Any]:
    if family in ALONE:
        return [ALONE[family]]
    make, shape = NETWORKS[family]
    torch.manual_seed(0)
    (model,) = import_model(make(), shapes=[shape])
    network = rewrite_model(model, isa=AVX512, sparse="always")
    lowered = lower_model(network, isa=AVX512, weights=WeightStore())
    return [step.kernel for step in lowered.program.steps]


@pytest.mark.parametrize("family", [*NETWORKS, *ALONE])
def test_generated_loops(family: str) -> None:
    kernel = next((k for k in kernels(family) if k.family == family), None)
    assert kernel is not None, (
        f"the network for {family} now compiles to {[k.family for k in kernels(family)]}: choose"
        " another one"
    )
    layout = kernel.result_layout
    assert layout is None or kernel.sizes()[kernel.operands[-1]] == Operand(
        layout.elements, layout.dtype
    )
    isa = AVX512_VNNI if family.endswith("_i8") else AVX512
    script = kernel.prim_func("kernel", isa).script() + "\n"
    path = GOLDEN / f"{family}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
    assert path.exists(), f"write it with: {COMMAND}"
    assert script == path.read_text(), f"the kernel changed; if that was intended: {COMMAND}"


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {*NETWORKS, *ALONE}
