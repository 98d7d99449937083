"""Elements picked by constants: PyTorch's answers, and no word of TVM's about indices."""

import pytest
import torch
from torch import nn

import subpc


class Picks(nn.Module):
    """Every way in which PyTorch picks elements by constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([[2, 0], [1, -1]]))
        self.register_buffer("places", torch.tensor([2, 0, 1]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        picked = torch.index_select(x, -1, self.places)
        return (
            x[:, 1],
            x[:, -1],
            x[:, self.table],
            picked,
            x[..., self.table, self.table],
            x.relu()[:, self.places, 2],
        )


def test_as_pytorch_and_silent(capfd: pytest.CaptureFixture[str]) -> None:
    x, model = torch.rand(2, 3, 4, 5), Picks().eval()
    compiled = subpc.compile(model, x)
    for got, expected in zip(compiled(x), model(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert capfd.readouterr() == ("", "")
