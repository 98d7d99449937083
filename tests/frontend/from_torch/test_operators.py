"""Operators whose arguments TVM's importer drops, misreads or does not know: compiled, they equal
PyTorch eager."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subpc.compiler.compile_model import compile
from subpc.errors import ConfigError, UnsupportedModelError

TOLERANCE = 1e-4  # of the output's range

Function = Callable[..., torch.Tensor]


class Calls(nn.Module):
    """A function as a network."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def planes(*shape: int) -> torch.Tensor:
    return 2 * torch.randn(shape or (2, 8, 7, 9), generator=torch.Generator().manual_seed(0))


def seeded(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return module


def check(model: nn.Module | Function, *inputs: torch.Tensor) -> None:
    module = (seeded(model) if isinstance(model, nn.Module) else Calls(model)).eval()
    with torch.no_grad():
        expected = module(*inputs)
    got = compile(module, inputs)(*inputs)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert float((got.double() - expected.double()).abs().max()) <= TOLERANCE * float(
        expected.double().abs().max()
    )


ACTIVATIONS = {
    "selu": nn.SELU(),
    "elu": nn.ELU(0.5),
    "celu": nn.CELU(0.5),
    "softplus": nn.Softplus(2, 1),
    "hardtanh": nn.Hardtanh(-2, 0.5),
    "threshold": nn.Threshold(0.1, 20),
    "prelu": nn.PReLU(8),
    "gelu": nn.GELU("tanh"),
    "glu": nn.GLU(1),
    "mish": nn.Mish(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_with_their_parameters(name: str) -> None:
    check(ACTIVATIONS[name], planes())


NORMS = {
    "group norm": nn.GroupNorm(4, 8),
    "group norm, no weights": nn.GroupNorm(2, 8, affine=False),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
    "layer norm": nn.LayerNorm([7, 9]),
    "layer norm, no weights": nn.LayerNorm(9, elementwise_affine=False),
    "layer norm, no bias": nn.LayerNorm(9, bias=False),
    "batch norm, no weights": nn.BatchNorm2d(8, affine=False, eps=0.1),
    "local response": nn.LocalResponseNorm(5, 0.01, 0.6, 2.0),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_with_and_without_weights(name: str) -> None:
    check(NORMS[name], planes())


POOLS = {
    "divisor": nn.AvgPool2d(2, divisor_override=3),
    "borders counted": nn.AvgPool2d(3, 2, 1),
    "borders not counted": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "uneven windows": nn.AdaptiveAvgPool2d((2, 4)),
    "more windows than pixels": nn.AdaptiveAvgPool2d(12),
    "global maximum": nn.AdaptiveMaxPool2d(1),
    "uneven maxima": nn.AdaptiveMaxPool2d((3, 4)),
    "dilated": nn.MaxPool2d(2, 1, dilation=2),
    "ceiled": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str) -> None:
    check(POOLS[name], planes() - 5)  # below zero: a border of zeros would win every maximum


SIZES = [{"scale_factor": 2}, {"scale_factor": 1.7}, {"size": (5, 20)}, {"size": (14, 9)}]


@pytest.mark.parametrize("options", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_interpolation(mode: str, options: dict[str, object]) -> None:
    check(lambda x: F.interpolate(x, mode=mode, **options), planes())  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"align_corners": True}, {"antialias": True}], ids=str)
def test_interpolation_between_corners_and_antialiased(options: dict[str, bool]) -> None:
    check(lambda x: F.interpolate(x, size=(4, 13), mode="bilinear", **options), planes())  # type: ignore[arg-type]


@pytest.mark.pairs
@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_grid_sample(mode: str, padding: str, align: bool) -> None:
    check(
        lambda x, g: F.grid_sample(x, g, mode, padding, align), planes(), 0.7 * planes(2, 5, 6, 2)
    )


@pytest.mark.parametrize("align", [True, False])
def test_places_in_the_middle_of_two_pixels(align: bool) -> None:
    """The nearest is the even one."""
    x = planes(1, 2, 8, 9 if align else 8)
    places = torch.arange(-0.5, 8, 0.5)
    column = places / 4 - 1 if align else (2 * places + 1) / 8 - 1
    grid = torch.stack([column, torch.zeros_like(column)], -1)[None, None]
    check(lambda x, g: F.grid_sample(x, g, "nearest", "border", align), x, grid)


OTHERS: dict[str, Function | nn.Module] = {
    "add with alpha": lambda x: torch.add(x, x.abs(), alpha=3),
    "subtract with alpha": lambda x: torch.sub(x, x.abs(), alpha=0.5),
    "power of two": torch.exp2,
    "maximum along an axis": lambda x: x.max(1)[0],
    "where the maximum is": lambda x: x.max(1)[1],
    "minimum along an axis": lambda x: x.min(2)[0],
    "amax": lambda x: x.amax((1, 3), keepdim=True),
    "logsumexp": lambda x: x.logsumexp(1),
    "product": lambda x: x.prod(1),
    "variance and mean": lambda x: torch.cat(torch.var_mean(x, (2, 3), correction=0), 1),
    "standard deviation": lambda x: x.std(1),
    "pixel shuffle": nn.PixelShuffle(2),
    "channel shuffle": nn.ChannelShuffle(4),
    "reflected border": nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
    "circular border": nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"),
    "the last of an axis": lambda x: x[:, -1],
    "from the end": lambda x: x[:, [-1, 0, -8]],
    "transposed convolution": nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_operators(name: str) -> None:
    check(OTHERS[name], planes())


FROM_DATA: dict[str, tuple[Function, torch.Tensor]] = {
    "gather": (lambda x, i: torch.gather(x, 1, i), torch.full((4, 2, 3), 10**9)),
    "index": (lambda x, i: x[:, i], torch.tensor([10**12, -(10**12), 6])),
    "several indices": (lambda x, i: x[i, i], torch.tensor([10**12, -(10**12), 6])),
    "index_select": (lambda x, i: x.index_select(2, i), torch.tensor([10**12, 3])),
    "embedding": (lambda x, i: F.embedding(i, x[0]), torch.tensor([10**9, 6])),
}


@pytest.mark.parametrize("name", FROM_DATA)
def test_indices_from_data_stay_inside(name: str) -> None:
    """Where PyTorch raises an error the index wraps around: wrong input, wrong output, but no
    foreign memory."""
    function, wild = FROM_DATA[name]
    x = torch.arange(4.0 * 6 * 3).reshape(4, 6, 3)
    tame = wild % torch.tensor(3)
    model = compile(Calls(function).eval(), (x, tame))
    assert torch.equal(model(x, tame), function(x, tame))
    assert set(model(x, wild).flatten().tolist()) <= set(x.flatten().tolist())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x.topk(3, 1)[0], "aten.topk"),
        (lambda x: x + torch.randn_like(x), "aten.randn_like"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[1], "the indices of aten.max_pool2d"),
    ],
)
def test_what_would_be_wrong_is_refused(function: Function, words: str) -> None:
    with pytest.raises(
        UnsupportedModelError, match=words.replace("[", r"\[").replace(".", r"\.")
    ) as caught:
        compile(Calls(function).eval(), planes())
    assert len(str(caught.value).splitlines()) <= 2


def test_an_image_without_a_batch_dimension_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"Layer 0 gets \(3, 8, 8\), which has no batch dimension"
    ):
        compile(nn.Sequential(nn.Conv2d(3, 4, 3)), planes(3, 8, 8))
