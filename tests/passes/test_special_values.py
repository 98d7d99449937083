"""Whole networks whose activations hold NaN and infinities, and integers divided by zero: what
PyTorch gives, and no dead process."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import subpc

Network = Callable[[torch.Tensor], torch.Tensor]


class Function(nn.Module):
    """A function of one image behind a convolution whose channels are the image's."""

    def __init__(self, function: Network, *, channels: int = 4, convolve: bool = True) -> None:
        super().__init__()
        self.function = function
        self.conv = (
            nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
            if convolve
            else nn.Identity()
        )
        if isinstance(self.conv, nn.Conv2d):
            nn.init.ones_(self.conv.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


def special_image(seed: int = 0) -> torch.Tensor:
    """(1, 4, 9, 10): ordinary numbers, a few NaN and infinities alone, and one channel of nothing
    but minus infinity."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, 9, 10, generator=generator)
    x[0, 0, 2, 3], x[0, 0, 8, 9], x[0, 1, 0, 0], x[0, 1, 5, 5] = (
        float("nan"),
        float("nan"),
        float("inf"),
        float("-inf"),
    )
    x[0, 2] = float("-inf")
    x[0, 3] *= 100
    return x


POOLS: dict[str, Network] = {
    "2x2": lambda x: functional.max_pool2d(x, 2),
    "3x3 padded": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "3x3 after relu": lambda x: functional.max_pool2d(functional.relu(x), 3, 2, 1),
    "5x5 stride 1": lambda x: functional.max_pool2d(x, 5, 1, 2),
    "dilated": lambda x: functional.max_pool2d(x, 3, 1, 1, 2),
    "large window": lambda x: functional.max_pool2d(x, (9, 8), 1),
    "whole image": lambda x: functional.adaptive_max_pool2d(x, 1),
    "to 3x3": lambda x: functional.adaptive_max_pool2d(x, 3),
    "mean": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "global mean": lambda x: functional.adaptive_avg_pool2d(x, 1),
}
FUNCTIONS: dict[str, Network] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "clamp": lambda x: x.clamp(-1.0, 2.0),
    "clamp below": lambda x: x.clamp(min=0.5),
    "leaky relu": lambda x: functional.leaky_relu(x, 0.1),
    "elu": functional.elu,
    "softplus": functional.softplus,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": lambda x: functional.hardswish(x / 10),
    "tanh": torch.tanh,
    "mish": functional.mish,
    "exp": torch.exp,
    "abs": torch.abs,
    "maximum": lambda x: torch.maximum(x, x.flip(3)),
    "minimum": lambda x: torch.minimum(x.flip(2), x),
    "maximum with a number": lambda x: torch.maximum(x, torch.tensor(0.25)),
    "max over an axis": lambda x: x.amax(3),
    "min over an axis": lambda x: x.amin(1),
    "max over everything": lambda x: x.amax((1, 2, 3)),
    "softmax": lambda x: functional.softmax(x, 1),
    "softmax over rows": lambda x: functional.softmax(x, 3),
    "log softmax over rows": lambda x: functional.log_softmax(x, 3),
    "softmax of a masked row": lambda x: functional.softmax(
        x.masked_fill(x > -1e9, float("-inf")), 2
    ),
    "finite mask": lambda x: functional.softmax(
        torch.nan_to_num(x) * 0 + torch.finfo(torch.float32).min, 3
    ),
    "sum": lambda x: x.sum((2, 3)),
}


@pytest.mark.parametrize("convolve", [True, False], ids=["behind a convolution", "alone"])
@pytest.mark.parametrize("name", [*POOLS, *FUNCTIONS])
def test_special_values_give_what_pytorch_gives(name: str, convolve: bool) -> None:
    x = special_image()
    network = Function({**POOLS, **FUNCTIONS}[name], convolve=convolve).eval()
    with torch.no_grad():
        expected = network(x).numpy()
    got = subpc.compile(network, x)(x.numpy())
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rounding", ["floor", "trunc", None])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integers_divided_by_zero_do_not_end_the_process(
    rounding: str | None, dtype: torch.dtype
) -> None:
    class Divide(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (
                torch.remainder(a, b)
                if rounding is None
                else torch.div(a, b, rounding_mode=rounding)
            )

    lowest = torch.iinfo(dtype).min
    a = torch.tensor([[7, -7, lowest, 5, lowest, 9]], dtype=dtype)
    b = torch.tensor([[2, 2, 1, 3, 2, -4]], dtype=dtype)
    model = subpc.compile(Divide(), (a, b))
    np.testing.assert_array_equal(model(a.numpy(), b.numpy()), Divide()(a, b).numpy())
    zeros = torch.zeros_like(b)
    np.testing.assert_array_equal(model(a.numpy(), zeros.numpy()), zeros.numpy())
    assert model(a.numpy(), torch.full_like(b, -1).numpy()).shape == (1, 6)


POSITIONS: dict[str, Network] = {
    "argmax of rows": lambda x: x.argmax(3),
    "argmin of rows": lambda x: x.argmin(3),
    "argmax of channels": lambda x: x.argmax(1, keepdim=True),
    "argmin of channels": lambda x: x.argmin(1),
    "argmax of everything": lambda x: x.argmax(),
    "argmin of everything": lambda x: x.argmin(),
    "max with its index": lambda x: x.max(2)[1],
    "min with its index": lambda x: x.min(2)[1],
}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_are_the_first_of_equals_and_of_nan(name: str) -> None:
    x = special_image()
    x[0, 0, 8, 2] = x[0, 0, 8, 5] = float("nan")
    x[0, 1, 3, 4:8] = x[0, 1, 3].max()
    x[0, 1, 6] = x[0, 1, 6].flip(0).clamp(-0.25, 0.25)
    x[0, 3, 2:4] = float("inf")
    network = Function(POSITIONS[name], convolve=False).eval()
    model = subpc.compile(network, x)
    for image in (
        x,
        torch.full_like(x, float("-inf")),
        torch.full_like(x, float("nan")),
        torch.full_like(x, float("inf")),
    ):
        np.testing.assert_array_equal(model(image.numpy()), network(image).numpy())


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("name", POSITIONS)
def test_positions_of_integers(name: str, dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    x = torch.randint(0, 4, (1, 4, 9, 10), dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[0, 1], x[0, 2], x[0, 3, 2, 5:8], x[0, 3, 4, 5:8] = (
        limits.min,
        limits.max,
        limits.min,
        limits.max,
    )
    network = Function(POSITIONS[name], convolve=False).eval()
    np.testing.assert_array_equal(subpc.compile(network, x)(x.numpy()), network(x).numpy())


def test_bytes_are_divided() -> None:
    class Divide(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.div(a, b, rounding_mode="floor") + torch.remainder(a, b)

    a, b = (
        torch.tensor([[7, 255, 128, 5]], dtype=torch.uint8),
        torch.tensor([[2, 255, 3, 9]], dtype=torch.uint8),
    )
    model = subpc.compile(Divide(), (a, b))
    np.testing.assert_array_equal(model(a.numpy(), b.numpy()), Divide()(a, b).numpy())
    np.testing.assert_array_equal(model(a.numpy(), np.zeros_like(b)), np.zeros((1, 4)))
