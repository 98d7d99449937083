"""Parts of a tensor's channels are read where they are."""

import pytest
import torch
from torch import nn

from subpc.compiler.compile_model import compile
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
