"""`subpc compile --precision int8` and `auto`: with images and without, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from subpc.cli.main import run
from subpc.library.artifact import read_metadata
from tests.cli.network import net

SHAPE = (1, 3, 8, 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.pt2"
    torch.export.save(torch.export.export(net(), (torch.rand(SHAPE),)), path)
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 20, 30, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def outputs(library: Path, folder: Path, x: np.ndarray) -> np.ndarray:
    np.save(folder / "x.npy", x)
    command = ["run", str(library), "--input", str(folder / "x.npy"), "-o", str(folder / "y.npy")]
    assert run(command) == 0
    return np.load(folder / "y.npy")


@pytest.mark.parametrize("source", ["nothing", "photographs", "file"])
def test_a_network_in_integers_gives_nearly_what_it_gave_in_floats(
    source: str, model: Path, photographs: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(1).random((4, *SHAPE[1:]), np.float32))
    given = {
        "nothing": [],
        "photographs": ["--calibration", str(photographs), "--mean", "0", "--std", "1"],
        "file": ["--calibration", str(tmp_path / "images.npy")],
    }[source]
    library = tmp_path / "net.so"
    command = ["compile", str(model), "--precision", "int8", *given, "-o", str(library)]
    assert run(command) == 0
    metadata = read_metadata(library)
    assert metadata.precision == "int8"
    assert any("calibrated with" in note for note in metadata.notes) == bool(given)
    x = np.random.default_rng(2).random(SHAPE, np.float32)
    with torch.no_grad():
        expected = net()(torch.from_numpy(x)).numpy()
    found = outputs(library, tmp_path, x)
    assert 0 < np.abs(found - expected).max() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("given", [False, True])
def test_each_layer_in_what_is_faster_says_why(
    given: bool,
    model: Path,
    photographs: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = ["--calibration", str(photographs)] if given else []
    library = tmp_path / "net.so"
    assert run(["compile", str(model), "--precision", "auto", *options, "-o", str(library)]) == 0
    (note,) = [n for n in read_metadata(library).notes if n.startswith("auto: ")]
    assert note.startswith("auto: 2 of 2 layers in int8, noise ")
    assert f"note: {note}" in capfd.readouterr().out
    assert run(["inspect", str(library)]) == 0
    assert "int8: predicted" in " ".join(capfd.readouterr().out.split())


def test_auto_is_no_error_where_there_is_no_choice(model: Path, tmp_path: Path) -> None:
    library, options = tmp_path / "net.so", ["--precision", "auto", "--target", "llvm"]
    assert run(["compile", str(model), *options, "-o", str(library)]) == 0
    metadata = read_metadata(library)
    assert metadata.precision == "float32"
    assert any("auto: everything in float32, because" in note for note in metadata.notes)


def test_images_are_for_integers_alone(
    compiling: Callable[..., str], model: Path, photographs: Path
) -> None:
    said = compiling(model, "--calibration", photographs, code=2)
    assert "calibration images are read for precision 'int8' and 'auto' alone" in said


def test_a_target_without_instructions_for_bytes(
    compiling: Callable[..., str], model: Path
) -> None:
    said = compiling(model, "--precision", "int8", "--target", "llvm -mcpu=x86-64", code=1)
    assert "int8 needs instructions that multiply bytes" in said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "holds 0 images"),
        (lambda path: path.write_text("no folder"), "is not a folder"),
        (lambda path: None, "does not exist"),
    ],
)
def test_folders_that_are_none(
    make: Callable[[Path], object],
    said: str,
    compiling: Callable[..., str],
    model: Path,
    tmp_path: Path,
) -> None:
    make(tmp_path / "images")
    options = ("--precision", "int8", "--calibration", tmp_path / "images")
    assert said in compiling(model, *options, code=2)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 3, 9, 9), "float32"), "has the shape (4, 3, 9, 9)"),
        (np.zeros((0, 3, 8, 8), "float32"), "has the shape (0, 3, 8, 8)"),
        (np.full((2, 3, 8, 8), np.nan, "float32"), "not finite"),
        (np.full((2, 3, 8, 8), 1e300), "x.npy holds values that are not finite in float32"),
        (np.array(["a", "b"]), "holds <U1"),
        (np.zeros((2, 3, 8, 8), "complex64"), "holds complex64"),
    ],
)
def test_arrays_that_are_no_inputs(
    array: np.ndarray, said: str, compiling: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", array)
    options = ("--precision", "int8", "--calibration", tmp_path / "x.npy")
    assert said in compiling(model, *options, code=2)


def test_images_that_cannot_be_read_are_left_out_and_named(
    model: Path, photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photographs / "broken.png").write_bytes(b"no image")
    library = tmp_path / "net.so"
    options = ["--precision", "int8", "--calibration", str(photographs)]
    assert run(["compile", str(model), *options, "-o", str(library)]) == 0
    assert "note: skipped " in (said := capfd.readouterr().out)
    assert "broken.png" in said
    assert any("skipped" in n and "broken.png" in n for n in read_metadata(library).notes)
