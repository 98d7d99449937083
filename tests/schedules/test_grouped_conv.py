"""Depthwise and grouped convolution against PyTorch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.activation import Activation
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.grouped_conv import GroupedConv
from subpc.schedules.grouped_tile import default_rows
from subpc.schedules.isa import AVX512, VectorIsa
from tests.schedules.harness import (
    ISAS,
    assembly,
    check_tensor,
    cpu_supports,
    into,
    like,
    run_everywhere,
    tensor,
)

SHAPES = [
    (1, 1, 1, 1),
    (3, 5, 7, 7),
    (1, 17, 13, 17),
    (2, 3, 14, 14),
    (1, 3, 28, 33),
    (1, 2, 56, 5),
]


def check(
    shape: tuple[int, int, int, int],
    isa: VectorIsa,
    *,
    outs: int,
    groups: int,
    kernel: tuple[int, int],
    **options: Any,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype("float32")
    w = rng.standard_normal((outs, shape[1] // groups, *kernel)).astype("float32")
    bias = rng.standard_normal(outs).astype("float32")
    stride, dilation = options.get("stride", (1, 1)), options.get("dilation", (1, 1))
    top, left = options.get("padding", (0, 0))
    below, right = options.pop("after", (top, left))
    padded = functional.pad(torch.tensor(x), (left, right, top, below))
    expected = functional.conv2d(
        padded, torch.tensor(w), torch.tensor(bias), stride, 0, dilation, groups
    )
    source, out = (
        tensor(*shape, options.pop("halo", max(top, left, below, right))),
        like(expected.numpy(), 1),
    )
    kernel_ = GroupedConv(source=source, out=out, groups=groups, kernel=kernel, **options)
    arrays = [into(source, x), w.ravel(), bias]
    if kernel_.epilogue.residual:
        residual = rng.standard_normal(tuple(expected.shape)).astype("float32")
        expected, arrays = expected + torch.tensor(residual), [*arrays, into(out, residual)]
    if kernel_.epilogue.activation.kind == "relu6":
        expected = functional.relu6(expected)
    if kernel_.epilogue.activation.kind == "sigmoid":
        expected = torch.sigmoid(expected)
    got = run_everywhere(kernel_, [*arrays, np.zeros(out.elements, "float32")], isa)
    check_tensor(out, got, expected.numpy())


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_depthwise_3x3(
    shape: tuple[int, int, int, int], stride: tuple[int, int], isa: VectorIsa
) -> None:
    check(
        shape,
        isa,
        outs=shape[1],
        groups=shape[1],
        kernel=(3, 3),
        stride=stride,
        padding=(1, 1),
        epilogue=Epilogue(activation=Activation(kind="relu6")),
    )


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=str)
def test_depthwise_5x5(stride: tuple[int, int], isa: VectorIsa) -> None:
    check((2, 3, 15, 21), isa, outs=3, groups=3, kernel=(5, 5), stride=stride, padding=(2, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": (7, 7), "padding": (3, 3)},
        {"kernel": (3, 3), "padding": (2, 4), "dilation": (2, 4)},
        {"kernel": (3, 3), "padding": (0, 0), "after": (1, 1), "stride": (2, 2)},
        {"kernel": (1, 5), "padding": (0, 2), "stride": (1, 2)},
        {"kernel": (3, 3), "padding": (1, 1), "stride": (3, 3)},
        {
            "kernel": (3, 3),
            "padding": (1, 1),
            "epilogue": Epilogue(residual=True, activation=Activation(kind="sigmoid")),
        },
        {"kernel": (2, 2), "padding": (0, 0), "halo": 0},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_other_windows(options: dict[str, Any]) -> None:
    check((2, 3, 19, 23), AVX512, outs=3, groups=3, **options)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("ins", "outs", "groups"), [(4, 8, 4), (12, 6, 3), (8, 8, 2), (3, 5, 1)])
def test_grouped(ins: int, outs: int, groups: int, batch: int, isa: VectorIsa) -> None:
    check((batch, ins, 9, 18), isa, outs=outs, groups=groups, kernel=(3, 3), padding=(1, 1))


def test_missing_halo_is_refused() -> None:
    with pytest.raises(ValueError, match="reach 1 pixels"):
        GroupedConv(
            source=tensor(1, 4, 8, 8, 0),
            out=tensor(1, 4, 8, 8, 1),
            groups=4,
            kernel=(3, 3),
            padding=(1, 1),
        )


@pytest.mark.parametrize(("size", "stride"), [(56, 1), (14, 1), (7, 1), (56, 2)])
def test_inner_loop_is_vectors_only(size: int, stride: int) -> None:
    side = size // stride
    kernel = GroupedConv(
        source=tensor(1, 144, size, size, 1),
        out=tensor(1, 144, side, side, 1),
        groups=144,
        kernel=(3, 3),
        stride=(stride, stride),
        padding=(1, 1),
        epilogue=Epilogue(activation=Activation(kind="relu6")),
    )
    text = assembly(kernel, AVX512)
    assert "Workspace" not in text
    assert "vfmadd231ss" not in text
    assert text.count("vfmadd") >= 9 * default_rows(kernel.out.frame.height, AVX512)
    assert text.count("gather") == 0
