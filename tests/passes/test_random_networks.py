"""Random networks through the whole compile: whatever is combined with whatever, the numbers are
those of float64."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from subpc.compiler.compile_model import compile
from tests.passes.test_end_to_end import prune_blocks

TOLERANCE = 1e-4  # of the output's range
ACTIVATIONS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *[
        F.relu,
        F.relu6,
        F.hardswish,
        F.silu,
        torch.sigmoid,
        F.hardsigmoid,
        F.gelu,
        torch.tanh,
        F.elu,
        F.mish,
    ],
    *[
        lambda x: x,
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: x.clamp(-1, 2),
        lambda x: x.clamp(min=-0.5),
    ],
]
CHANNELS = (3, 4, 7, 8, 10, 16, 20, 24, 32)
# Images are not enlarged beyond this many pixels a side.
MAX_SIDE = 40


class Random(nn.Module):
    """Steps that each read earlier tensors; several of the last tensors are outputs."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__()
        torch.manual_seed(draw(st.integers(0, 99)))
        self.layers = nn.ModuleList()
        self.steps: list[Callable[[list[torch.Tensor]], torch.Tensor]] = []
        shapes = [
            (draw(st.sampled_from([1, 2])), 8, draw(st.integers(1, 17)), draw(st.integers(5, 17)))
        ]
        self.shape = shapes[0]
        for _ in range(draw(st.integers(2, 9))):
            shapes.append(self._add(draw, shapes))
        self.outputs = sorted(
            {len(shapes) - 1, *draw(st.lists(st.integers(0, len(shapes) - 1), max_size=2))}
        )

    def _add(self, draw: st.DrawFn, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        """One more step, and the shape of what it makes."""
        at = draw(st.integers(max(0, len(shapes) - 4), len(shapes) - 1))
        alike = [i for i, shape in enumerate(shapes) if shape == shapes[at]]
        fitting = [i for i, shape in enumerate(shapes) if shape[2:] == shapes[at][2:]]
        kind = draw(
            st.sampled_from(
                [
                    "conv",
                    "conv",
                    "conv",
                    "depthwise",
                    "pool",
                    "add",
                    "concat",
                    "scale",
                    "gate",
                    "context",
                    "slice",
                    "up",
                    "grouped",
                ]
            )
        )
        if kind == "add":
            other, activation = draw(st.sampled_from(alike)), draw(st.sampled_from(ACTIVATIONS))
            self.steps.append(lambda t: activation(t[at] + t[other]))
            return shapes[at]
        if kind == "concat":
            parts = draw(st.lists(st.sampled_from(fitting), min_size=2, max_size=3))
            self.steps.append(lambda t: torch.cat([t[i] for i in parts], 1))
            return (shapes[at][0], sum(shapes[i][1] for i in parts), *shapes[at][2:])
        if kind == "scale":
            factor = draw(st.sampled_from([0.5, 2.0, -1.0]))
            self.steps.append(lambda t: t[at] * factor + 1)
            return shapes[at]
        if kind == "gate":
            self.steps.append(lambda t: t[at] * t[at].mean((2, 3), keepdim=True).sigmoid())
            return shapes[at]
        if kind == "context":
            return self._context(draw, at, shapes[at])
        if kind == "slice" and shapes[at][1] % 2 == 0:
            first = draw(st.booleans())
            self.steps.append(lambda t: t[at].chunk(2, 1)[0 if first else 1])
            return (shapes[at][0], shapes[at][1] // 2, *shapes[at][2:])
        if kind == "pool" and min(shapes[at][2:]) > 3:
            return self._pool(draw, at, shapes[at])
        if kind == "up" and max(shapes[at][2:]) <= MAX_SIDE // 2:
            return self._up(draw, at, shapes[at])
        groups = {"depthwise": shapes[at][1], "grouped": draw(st.sampled_from([2, 4]))}.get(kind, 1)
        return self._conv(draw, at, shapes[at], groups if shapes[at][1] % groups == 0 else 1)

    def _context(self, draw: st.DrawFn, at: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A convolution of what a tensor has on the average, with which the whole tensor is
        combined: the convolution's result is the smaller operand."""
        index, over = len(self.layers), draw(st.sampled_from([(2, 3), (2,), (3,)]))
        combine = draw(st.sampled_from([torch.add, torch.mul, torch.maximum]))
        self.layers.append(nn.Conv2d(shape[1], draw(st.sampled_from([1, shape[1]])), 1))
        self.steps.append(
            lambda t: combine(t[at], self.layers[index](t[at].mean(over, keepdim=True)))
        )
        return shape

    def _pool(self, draw: st.DrawFn, at: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        size, stride = draw(st.sampled_from([2, 3])), draw(st.sampled_from([1, 2]))
        padding = draw(st.integers(0, size // 2))
        pool = draw(st.sampled_from([F.max_pool2d, F.avg_pool2d]))
        self.steps.append(lambda t: pool(t[at], size, stride, padding))
        return (*shape[:2], *((n + 2 * padding - size) // stride + 1 for n in shape[2:]))

    def _conv(
        self, draw: st.DrawFn, at: int, shape: tuple[int, ...], groups: int
    ) -> tuple[int, ...]:
        kernel, stride, dilation = (
            draw(st.sampled_from([1, 2, 3, 5])),
            draw(st.sampled_from([1, 1, 2, 3])),
            draw(st.sampled_from([1, 1, 2, 3])),
        )
        padding = draw(st.sampled_from([kernel // 2 * dilation, 0, 1]))
        if min(shape[2:]) + 2 * padding < (kernel - 1) * dilation + 1:
            kernel, padding, dilation = 1, 0, 1
        filters = (
            groups * draw(st.sampled_from([1, 2]))
            if groups == shape[1]
            else groups * draw(st.sampled_from(CHANNELS))
        )
        conv = nn.Conv2d(
            shape[1], filters, kernel, stride, padding, dilation, groups, bias=draw(st.booleans())
        )
        n = draw(st.sampled_from([0, 4, 8, 16]))
        if n and groups == 1 and filters % n == 0:
            prune_blocks(
                conv.weight, n, draw(st.sampled_from([0.5, 0.8])), uniform=draw(st.booleans())
            )
        self._layer(draw, at, conv)
        return (
            shape[0],
            filters,
            *((n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in shape[2:]),
        )

    def _up(self, draw: st.DrawFn, at: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        if draw(st.booleans()):
            self.steps.append(lambda t: F.interpolate(t[at], scale_factor=2))
            return (*shape[:2], 2 * shape[2], 2 * shape[3])
        kernel, stride = draw(st.sampled_from([1, 2, 3, 4])), draw(st.sampled_from([1, 2, 3]))
        padding, more = draw(st.integers(0, kernel // 2)), draw(st.integers(0, stride - 1))
        if (min(shape[2:]) - 1) * stride - 2 * padding + kernel + more < 1:
            padding = 0
        filters = draw(st.sampled_from(CHANNELS))
        self._layer(draw, at, nn.ConvTranspose2d(shape[1], filters, kernel, stride, padding, more))
        return (
            shape[0],
            filters,
            *((n - 1) * stride - 2 * padding + kernel + more for n in shape[2:]),
        )

    def _layer(self, draw: st.DrawFn, at: int, layer: nn.Module) -> None:
        index, activation = len(self.layers), draw(st.sampled_from(ACTIVATIONS))
        self.layers.append(layer)
        self.steps.append(lambda t: activation(self.layers[index](t[at])))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tensors = [x]
        for step in self.steps:
            tensors.append(step(tensors))
        return tuple(tensors[i] for i in self.outputs)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_networks_compute_what_float64_does(data: st.DataObject) -> None:
    check(Random(data.draw).eval())


@pytest.mark.slow
@seed(7)
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_random_networks(data: st.DataObject) -> None:
    check(Random(data.draw).eval())


def check(net: Random) -> None:
    """Two inputs; an output is right within a share of its largest value."""
    # The second is large, and meets what the first call left in the workspace.
    inputs = [torch.randn(net.shape), 100 * torch.randn(net.shape)]
    model = compile(net, inputs[0])
    results = [model(x) for x in inputs]
    net.double()
    for x, got in zip(inputs, results, strict=True):
        with torch.no_grad():
            expected = net(x.double())
        for g, e in zip(got if isinstance(got, tuple) else (got,), expected, strict=True):
            assert g.shape == e.shape
            assert float((g - e).abs().max()) <= TOLERANCE * max(1.0, float(e.abs().max()))
