"""Parts of a tensor's channels are read where they are."""

import pytest
import torch
from torch import nn

from subpc.compiler.compile_model import compile
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, shape_of
from tests.passes.evaluate import assert_same, operators, stages


class Partial(nn.Module):
    """Convolves some channels and passes the others on (FasterNet, YOLOv8's C2f); a part is read
    again after the sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.part, self.same = (
            nn.Conv2d(8, 32, 3, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(32, 32, 1),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x).relu()
        left, right = x.chunk(2, 1)
        total = self.same(torch.cat([self.part(left), right], 1)) + x
        return total, self.part(right) - left


def images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 8, 9, 11, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch", [1, 2])
def test_parts_keep_their_values_while_others_are_overwritten(batch: int) -> None:
    net, x = Partial().eval(), images(batch)
    with torch.no_grad():
        for got, expected in zip(compile(net, x)(x), net(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_part_is_no_copy() -> None:
    net, x = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1)).eval(), images(1)

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = net, nn.Conv2d(16, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).chunk(2, 1)[1])

    before, after = stages(Half().eval(), tuple(x.shape), until="recognise_shapes")
    assert_same(before, after, x)
    assert operators(after) == ["subpc.conv2d", "subpc.channels", "subpc.conv2d"]
    families = [
        step.family for step in compile(Half().eval(), x).report.metadata.functions[0].steps
    ]
    assert families[0] == families[-1] == "relayout"  # the input, the output
    assert all("conv" in family for family in families[1:-1])


def test_unequal_parts_and_parts_of_an_input() -> None:
    class Split(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            a, b, c = x.split([2, 3, 3], 1)
            return a.relu(), b * 2, torch.cat([c, a], 1), c

    x = images(2)
    for got, expected in zip(compile(Split(), x)(x), Split()(x), strict=True):
        assert torch.equal(got, expected)


class Stacked(nn.Module):
    """Parts of a tensor, what is made of one of them, and all of it concatenated again, as
    detectors do; `order`: of the parts."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.part = nn.Conv2d(8, 48, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.last, self.order = nn.Conv2d(16 * (len(order) + 1), 32, 1), order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.first(x).relu().split(16, 1)
        made = self.part(parts[1]).relu()
        return self.last(torch.cat([*(parts[i] for i in self.order), made], 1))


@pytest.mark.parametrize(
    ("order", "left"),
    [((0, 1, 2), (48, 16)), ((1, 2), (32, 16)), ((2, 1), (16, 16, 16)), ((0, 2), (16, 16, 16))],
)
def test_neighbouring_parts_are_concatenated_in_one_piece(
    order: tuple[int, ...], left: tuple[int, ...]
) -> None:
    net, x = Stacked(order).eval(), images(2)
    before, after = stages(net, tuple(x.shape), until="recognise_shapes")
    assert_same(before, after, x)
    graph = Dataflow(after["main"])
    ((_, concat),) = graph.calls(ops.CONCAT)
    assert tuple(shape_of(field)[1] for field in concat.args) == left


def test_a_tensor_that_is_concatenated_whole_is_written_there() -> None:
    net, x = Stacked((0, 1, 2)).eval(), images(1)
    compiled = compile(net, x)
    families = [step.family for step in compiled.report.metadata.functions[0].steps]
    assert "relayout" not in families[1:-1]
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-5, atol=1e-5)
