"""Transposed convolutions are ordinary ones to the kernels: of each phase of the stride, or of all
phases with the same taps."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from subpc.compiler.compile_model import compile
from subpc.errors import SlowLayerWarning
from tests.passes.evaluate import assert_same, attributes, operators, stages

# kernel, stride, padding, output_padding, dilation
GEOMETRIES: list[tuple[Any, ...]] = [
    (2, 2, 0, 0, 1),
    (3, 2, 1, 1, 1),
    (4, 2, 1, 0, 1),
    (1, 2, 0, 1, 1),  # a kernel below its stride: some pixels are the bias
    (2, 3, 0, 0, 1),
    (3, 1, 1, 0, 1),
    (3, 1, 0, 0, 2),
    (3, 1, 2, 0, 1),
    (3, 3, 3, 2, 1),  # a whole row of each phase is cut off
    (3, 1, 3, 0, 1),  # more is cut off than a convolution could pad
    (5, 2, 2, 1, 1),
    (3, 2, 0, 0, 2),  # dilation and stride have a factor in common
    (3, 3, 1, 2, 3),
    (4, 4, 3, 0, 1),
    (7, 4, 2, 3, 1),
    ((3, 2), (1, 2), (1, 0), 0, 1),
    ((2, 5), (2, 3), (0, 1), (0, 2), (1, 2)),
]


def network(
    geometry: tuple[Any, ...], channels: tuple[int, int] = (5, 6), groups: int = 1
) -> nn.Module:
    """A transposed convolution, batch norm and ReLU whose bias makes half of the pixels
    positive."""
    kernel, stride, padding, output_padding, dilation = geometry
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(
        *channels, kernel, stride, padding, output_padding, groups, dilation=dilation
    )
    norm = nn.BatchNorm2d(channels[1])
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        assert tensor is not None
        nn.init.uniform_(tensor, -1, 1)
    return nn.Sequential(layer, norm, nn.ReLU()).eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def compiled(net: nn.Module, x: torch.Tensor) -> Any:
    """The network compiled, no layer of it in the fallback, and compared with float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowLayerWarning)
        model = compile(net, x)
    assert model.report.in_fallback == ()
    got = model(x)
    with torch.no_grad():
        expected = net.double()(x.double())
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())
    return model


@pytest.mark.parametrize("size", [(5, 7), (4, 6)], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_passes_keep_what_is_computed(geometry: tuple[Any, ...], size: tuple[int, int]) -> None:
    x = images(2, 5, *size)
    before, after = stages(network(geometry), tuple(x.shape), until="split_phases")
    assert_same(before, after, x)
    assert "subpc.conv2d_transpose" not in operators(after)


@pytest.mark.parametrize(
    ("geometry", "channels", "groups", "shape"),
    [
        ((2, 2, 0, 0, 1), (8, 16), 1, (1, 8, 6, 17)),
        ((3, 2, 1, 1, 1), (16, 16), 1, (2, 16, 5, 7)),
        ((4, 2, 1, 0, 1), (6, 6), 6, (1, 6, 5, 7)),  # depthwise, as bilinear upsampling is
        ((4, 2, 1, 0, 1), (6, 10), 2, (1, 6, 5, 7)),
        ((2, 3, 0, 0, 1), (5, 6), 1, (2, 5, 4, 3)),
        ((4, 1, 0, 0, 1), (5, 6), 1, (1, 5, 1, 1)),  # a generator's first layer
    ],
    ids=str,
)
def test_kernels_compute_what_pytorch_does(
    geometry: tuple[Any, ...], channels: tuple[int, int], groups: int, shape: tuple[int, ...]
) -> None:
    compiled(network(geometry, channels, groups), images(*shape))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 6)], ids=str)
@pytest.mark.parametrize(
    ("channels", "groups"), [((5, 6), 1), ((6, 10), 2), ((4, 4), 4), ((3, 12), 3)], ids=str
)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_whole_grid(
    geometry: tuple[Any, ...], channels: tuple[int, int], groups: int, size: tuple[int, int]
) -> None:
    net, x = network(geometry, channels, groups), images(2, channels[0], *size)
    try:
        with torch.no_grad():
            net(x)
    except RuntimeError as error:
        pytest.skip(f"PyTorch: {error}")
    compiled(net, x)


@pytest.mark.parametrize(
    ("geometry", "convolutions", "rest"),
    [
        ((2, 2, 0, 0, 1), [((1, 1), 4)], ["subpc.interleave"]),
        ((4, 2, 1, 0, 1), [((2, 2), 4)], ["subpc.interleave"]),
        (
            (3, 2, 1, 1, 1),
            [((1, 1), 1), ((1, 2), 1), ((2, 1), 1), ((2, 2), 1)],
            ["subpc.concat", "subpc.interleave"],
        ),
        ((3, 1, 1, 0, 1), [((3, 3), 1)], []),
    ],
    ids=str,
)
def test_no_tap_is_computed_twice_or_for_nothing(
    geometry: tuple[Any, ...], convolutions: list[tuple[tuple[int, int], int]], rest: list[str]
) -> None:
    """(taps, phases) of each convolution; batch norm and ReLU are in them."""
    _, after = stages(network(geometry), (1, 5, 6, 6), until="split_phases")
    assert operators(after) == [*["subpc.conv2d"] * len(convolutions), *rest]
    graph_convs = attributes(after, "relax.subpc.conv2d")
    assert sorted(conv["out_shape"][1] // 6 for conv in graph_convs) == sorted(
        phases for _, phases in convolutions
    )
    assert {conv["activation"] for conv in graph_convs} == {"relu"}
    model = compile(network(geometry), images(1, 5, 6, 6))
    flops = [2 * 5 * 6 * taps[0] * taps[1] * phases for taps, phases in convolutions]
    pixels = graph_convs[0]["out_shape"][2] * graph_convs[0]["out_shape"][3]
    assert (
        sum(step.flops for step in model.report.metadata.functions[0].steps) == sum(flops) * pixels
    )


def test_a_layer_in_parts_is_one_layer_of_the_report() -> None:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.deep = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1)
            self.up, self.head = (
                nn.ConvTranspose2d(16, 16, 3, 2, 1, 1),
                nn.ConvTranspose2d(32, 4, 2, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skip = self.down(x).relu()
            return self.head(torch.cat([self.up(self.deep(skip).relu()).relu(), skip], 1))

    torch.manual_seed(0)
    model = compiled(UNet().eval(), images(1, 3, 12, 12))
    layers = {layer.name: layer for layer in model.report.convs}
    assert [*layers] == ["down", "deep", "up", "head"]
    assert (layers["up"].shape, layers["up"].stride) == ((16, 16, 3, 3), (2, 2))
    assert layers["up"].kernel == "dense_conv"
    assert layers["up"].bytes_dense == 4 * 16 * 16 * 9
    # The skip connection is joined without a copy: what computes its two halves writes into the
    # whole.
    families = [step.family for step in model.report.metadata.functions[0].steps]
    assert families.count("relayout") <= 2  # the input and the output


def test_blocks_of_zeros_are_skipped() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight[::2, :16] = 0
        net[0].weight[1::2, 16:] = 0
    model = compiled(net, images(1, 64, 16, 16))
    assert model.report.summary == "1/1 convs sparse, 0 dense"


def test_an_infinite_pixel_reaches_only_the_pixels_that_read_it() -> None:
    net, x = network((2, 3, 0, 0, 1)), images(1, 5, 4, 4)
    net, x[0, 0, 1, 2] = net[:1], torch.inf  # type: ignore[index]
    with torch.no_grad():
        expected = net(x)
    got = compile(net, x)(x)
    assert torch.equal(got.isfinite(), expected.isfinite())
    assert torch.allclose(got[got.isfinite()], expected[got.isfinite()], atol=1e-5)


def test_weights_that_depend_on_the_input_stay_with_the_fallback() -> None:
    class Dynamic(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv_transpose2d(x, w, stride=2)

    x, w = images(1, 3, 4, 4), images(3, 5, 2, 2)
    with pytest.warns(SlowLayerWarning, match="weights depend on the input"):
        model = compile(Dynamic(), (x, w))
    torch.testing.assert_close(model(x, w), nn.functional.conv_transpose2d(x, w, stride=2))


@pytest.mark.parametrize(
    "more",
    [
        {"strides": [2, 2], "pads": [0, 1, 2, 0]},
        {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]},
        {"strides": [2, 2], "output_shape": [9, 10]},
        {"strides": [1, 1], "pads": [0, 1, 2, 1], "group": 2},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ],
    ids=str,
)
def test_onnx_pads_each_side_on_its_own(more: dict[str, Any], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    x, w, b = (
        rng.standard_normal(shape).astype("float32")
        for shape in ((1, 4, 5, 5), (4, 3, 3, 3), (3 * more.get("group", 1),))
    )
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["z"], name="up", **more),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(n, 1, shape) for n, shape in (("x", x.shape), ("y", None))
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        values[:1],
        values[1:],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    result = compile(path)
    (expected,) = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"x": x})
    np.testing.assert_allclose(result(x), expected, rtol=1e-5, atol=1e-5)
    assert result.report.in_fallback == ()
