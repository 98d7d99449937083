"""Pixel shuffles and nearest upsampling are one pass over memory, however they are spelled."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn import functional as F

from subpc.compiler.compile_model import compile
from tests.passes.evaluate import assert_same, attributes, operators, stages

Tensor = torch.Tensor


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def by_hand(x: Tensor, axes: tuple[int, ...], parts: tuple[int, ...]) -> Tensor:
    """Blocks of 2 x 3 pixels out of 24 channels."""
    n, _, h, w = x.shape
    return x.reshape(n, *parts, h, w).permute(axes).reshape(n, 4, 2 * h, 3 * w)


RECOGNISED: dict[str, Callable[[Tensor], Tensor]] = {
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "channels first": lambda x: by_hand(x, (0, 1, 4, 2, 5, 3), (4, 2, 3)),
    "blocks first": lambda x: by_hand(x, (0, 3, 4, 1, 5, 2), (2, 3, 4)),
    "columns first": lambda x: by_hand(x, (0, 2, 4, 3, 5, 1), (3, 4, 2)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest, to a size": lambda x: F.interpolate(x, size=(15, 14)),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "pixel unshuffle": lambda x: F.pixel_unshuffle(F.pad(x, (0, 1, 0, 1)), 2),
    "height among the channels": lambda x: (
        x.reshape(2, 3, 8, 5, 7).permute(0, 2, 1, 4, 3).reshape(2, 24, 7, 5)
    ),
    "groups out of order": lambda x: (
        x.reshape(2, 4, 6, 5, 7).permute(0, 1, 2, 3, 4).flip(1).reshape(2, 24, 5, 7)
    ),
    "rows and columns exchanged": lambda x: (
        x.reshape(2, 4, 2, 3, 5, 7).permute(0, 1, 5, 2, 4, 3).reshape(2, 4, 14, 15)
    ),
    "another shape in the end": lambda x: (
        x.reshape(2, 4, 2, 3, 5, 7).permute(0, 1, 4, 2, 5, 3).reshape(2, 8, 5, 21)
    ),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "nearest, by half": lambda x: F.interpolate(x, scale_factor=1.5),
}


def images() -> Tensor:
    return torch.randn(2, 24, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", RECOGNISED)
def test_recognised(name: str) -> None:
    net, x = Function(RECOGNISED[name]), images()
    before, after = stages(net, tuple(x.shape), until="recognise_shapes")
    assert operators(after) == ["subpc.interleave"]
    (found,) = attributes(after, "relax.subpc.interleave")
    assert found["out_shape"] == tuple(net(x).shape)
    if "resize2d" not in str(operators(before)) and "pixel_shuffle" not in str(operators(before)):
        assert_same(before, after, x)
    compiled = compile(net, x)
    assert torch.equal(compiled(x), net(x))
    assert {step.family for step in compiled.report.metadata.functions[0].steps} <= {
        "interleave",
        "relayout",
    }


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("groups", [2, 3])
def test_channel_shuffle_copies_planes(groups: int, batch: int) -> None:
    net = Function(lambda x: F.channel_shuffle(F.relu(x), groups))
    x = images()[:batch]
    before, after = stages(net, tuple(x.shape), until="recognise_shapes")
    assert operators(after)[-1] == "subpc.channels"
    assert_same(before, after, x)
    compiled = compile(net, x)
    assert torch.equal(compiled(x), net(x))
    called = {step.family for step in compiled.report.metadata.functions[0].steps}
    assert "channel_copy" in called
    assert "fallback" not in called


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_it_is_left_alone(name: str) -> None:
    net, x = Function(OTHERS[name]), images()
    _, after = stages(net, tuple(x.shape), until="recognise_shapes")
    assert "subpc.interleave" not in operators(after)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_of_onnx(mode: str, tmp_path: Path) -> None:
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode)
    values = [
        helper.make_tensor_value_info("x", 1, [2, 24, 5, 7]),
        helper.make_tensor_value_info("y", 1, None),
    ]
    model = helper.make_model(
        helper.make_graph([node], "net", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    x = images()
    parts, axes = (
        ((2, 2, 6), (0, 3, 4, 1, 5, 2)) if mode == "DCR" else ((6, 2, 2), (0, 1, 4, 2, 5, 3))
    )
    expected = x.reshape(2, *parts, 5, 7).permute(axes).reshape(2, 6, 10, 14)
    compiled = compile(path)
    np.testing.assert_array_equal(compiled(x.numpy()), expected.numpy())
    assert {step.family for step in compiled.report.metadata.functions[0].steps} <= {
        "interleave",
        "relayout",
    }
