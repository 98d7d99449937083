"""Layers keep the names that their weights had in the user's model."""

import torch
from torch import nn

from subpc.passes import ops
from tests.passes.evaluate import assert_same, attributes, evaluate, operators, stages


class Named(nn.Module):
    """Two blocks, one layer that runs twice, and a fully connected one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 2, (1, 0), bias=False)
        self.blocks = nn.ModuleList(
            [nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.Conv2d(8, 8, 1, groups=4)]
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks[1](self.blocks[0](self.stem(x)))
        return self.head(self.blocks[1](x).mean((2, 3)))


def test_names_and_attributes() -> None:
    before, after = stages(Named(), (1, 3, 12, 10), until="label_layers")
    assert operators(before).count("nn.conv2d") == 4
    assert "nn.conv2d" not in operators(after)
    assert "matmul" not in operators(after)
    convs = attributes(after, ops.CONV2D)
    assert [c["name"] for c in convs] == ["stem", "blocks.0", "blocks.1", "blocks.1#2"]
    assert [c["padding"] for c in convs[:2]] == [(1, 0, 1, 0), (2, 2, 2, 2)]
    assert [(c["strides"], c["dilation"], c["groups"]) for c in convs[:3]] == [
        ((2, 2), (1, 1), 1),
        ((1, 1), (2, 2), 1),
        ((1, 1), (1, 1), 4),
    ]
    (linear,) = attributes(after, ops.LINEAR)
    assert (linear["name"], linear["out_shape"], linear["activation"]) == ("head", (1, 5), "none")


def test_the_result_stays_the_same() -> None:
    """Compared where the weights are constants: right after, they are still parameters."""
    labelled, bound = stages(Named(), (2, 3, 12, 10), until="fold_constants")
    x = torch.rand(2, 3, 12, 10)
    assert_same(labelled, bound, x)
    net = Named().eval()
    with torch.no_grad():
        expected = net(x)
    assert torch.allclose(evaluate(bound, x)[0], expected, atol=1e-5)
