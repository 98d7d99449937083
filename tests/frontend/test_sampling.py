"""grid_sample as PyTorch computes it, compiled: far outside of the image, and at places that are
none."""

import itertools
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import subpc
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference

X = torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(0))
GRID = torch.rand(1, 4, 4, 2, generator=torch.Generator().manual_seed(1)) * 9 - 4.5
GRID[0, 0, 0] = math.nan
GRID[0, 0, 1, 0] = math.nan
GRID[0, 0, 2] = math.inf
GRID[0, 0, 3] = torch.tensor([-math.inf, 0.2])
# What PyTorch does of the first pixel's edge: exactly on the border, and between border and edge.
GRID[0, 1] = torch.tensor([[-1.0, 1.0], [-1.1, 1.05], [1.0, -1.0], [3.0, -3.0]])
CASES = list(itertools.product(("zeros", "border", "reflection"), (True, False)))


class Samples(nn.Module):
    def __init__(self, padding: str, align: bool) -> None:
        super().__init__()
        self.padding, self.align = padding, align

    def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return nn.functional.grid_sample(x, grid, "bilinear", self.padding, self.align)


@pytest.mark.parametrize(("padding", "align"), CASES)
def test_a_compiled_module(padding: str, align: bool) -> None:
    model = Samples(padding, align).eval()
    expected = model(X, GRID).numpy()
    np.testing.assert_allclose(
        subpc.compile(model, (X, GRID))(X.numpy(), GRID.numpy()), expected, atol=1e-5
    )
    assert np.isnan(expected).any() == (padding == "zeros")


def test_an_axis_of_one_pixel() -> None:
    for align in (True, False):
        model, x = Samples("reflection", align).eval(), X[:, :, :1]
        (imported,) = import_model(model, example_inputs=(x, GRID))
        np.testing.assert_allclose(
            run_reference(imported, [x.numpy(), GRID.numpy()])[0], model(x, GRID).numpy(), atol=1e-5
        )


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("padding", "align"), CASES)
def test_an_onnx_file(mode: str, padding: str, align: bool, tmp_path: Path) -> None:
    node = helper.make_node(
        "GridSample", ["x", "g"], ["y"], mode=mode, padding_mode=padding, align_corners=int(align)
    )
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, list(v.shape))
        for n, v in (("x", X), ("g", GRID))
    ]
    graph = helper.make_graph(
        [node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "m.onnx"
    )
    (imported,) = import_model(tmp_path / "m.onnx")
    expected = nn.functional.grid_sample(
        X, GRID, {"linear": "bilinear"}.get(mode, mode), padding, align
    ).numpy()
    np.testing.assert_allclose(
        run_reference(imported, [X.numpy(), GRID.numpy()])[0], expected, atol=1e-5
    )
