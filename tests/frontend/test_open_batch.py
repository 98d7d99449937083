"""A model that leaves nothing but its batch open is compiled for one image, and says so; more than
that is asked of the user."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim

from subpc.comparison.compare import compare
from subpc.errors import ConfigError
from subpc.frontend.import_model import import_model


class Two(nn.Module):
    """Two inputs of different rank."""

    def forward(self, image: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return image.relu().mean((2, 3)) + bias


class One(nn.Module):
    """A single input."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.relu().mean((2, 3))


IMAGE, BIAS = torch.rand(2, 3, 8, 8), torch.rand(2, 3)
BATCH = Dim("batch", min=1, max=8)


def save(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], open_axes: list[dict[int, str]], path: Path
) -> None:
    """The model with dimensions left open, in the kind of file that the suffix says."""
    if path.suffix == ".pt2":
        dims = {"batch": BATCH, "height": Dim("height", min=2, max=64)}
        shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in open_axes)
        torch.export.save(torch.export.export(model, inputs, dynamic_shapes=shapes), path)
        return
    names = ["image", "bias"][: len(inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = dict(zip(names, open_axes, strict=True))
        torch.onnx.export(
            model, inputs, str(path), dynamo=False, input_names=names, dynamic_axes=axes
        )


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_an_open_batch_is_one_image(name: str, tmp_path: Path) -> None:
    save(Two(), (IMAGE, BIAS), [{0: "batch"}, {0: "batch"}], tmp_path / name)
    (imported,) = import_model(tmp_path / name)
    assert imported.input_shapes == ((1, 3, 8, 8), (1, 3))
    assert (
        "input shape assumed: 1,3,8,8 and 1,3, because the model leaves the batch open"
        in imported.notes[-1]
    )
    (asked,) = import_model(tmp_path / name, shapes=[(4, 3, 8, 8), (4, 3)])
    assert asked.input_shapes == ((4, 3, 8, 8), (4, 3))
    assert not any("assumed" in note for note in asked.notes)


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_an_open_height_is_asked_for_with_an_example_that_fits(name: str, tmp_path: Path) -> None:
    save(Two(), (IMAGE, BIAS), [{0: "batch", 2: "height"}, {0: "batch"}], tmp_path / name)
    with pytest.raises(ConfigError) as caught:
        import_model(tmp_path / name)
    first, second = str(caught.value).splitlines()
    assert "image" in first
    assert second == "Pass one, such as --shape image=1,3,224,8 --shape bias=1,3."


def test_a_derived_dimension_is_no_reason_to_refuse_a_program(tmp_path: Path) -> None:
    height = 4 * Dim("quarter", min=2, max=16)
    program = torch.export.export(One(), (IMAGE,), dynamic_shapes=({2: height},))
    torch.export.save(program, tmp_path / "m.pt2")
    assert import_model(tmp_path / "m.pt2", shapes=[(2, 3, 12, 8)])[0].input_shapes == (
        (2, 3, 12, 8),
    )
    with pytest.raises(ConfigError, match="13"):
        import_model(tmp_path / "m.pt2", shapes=[(2, 3, 13, 8)])


def test_models_that_leave_the_batch_open_are_compared(tmp_path: Path) -> None:
    save(One(), (IMAGE,), [{0: "batch"}], tmp_path / "m.onnx")
    save(One(), (IMAGE,), [{0: "batch"}], tmp_path / "m.pt2")
    report = compare(tmp_path / "m.onnx", tmp_path / "m.pt2", runs=0)
    assert report.outputs[0].shape == (3,)
    assert report.outputs[0].relative < 1e-6
