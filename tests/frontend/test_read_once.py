"""Whatever is done with a model file, it is parsed, checked, folded and captured once."""

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from subpc.algorithms.file_format import safetensors_file
from subpc.algorithms.file_format.compressed_file import CompressedFile, save_compressed
from subpc.comparison.sides import OnnxSide, TorchSide
from subpc.compiler.compile_model import compile_file
from subpc.frontend.architectures.small_nets import build
from subpc.frontend.files.load_file import load_torch_file
from subpc.frontend.from_onnx import network as onnx_network
from subpc.frontend.from_torch.to_onnx_file import export_onnx
from subpc.frontend.import_model import import_model
from subpc.frontend.load_network import load_network
from tests.frontend.small_model import ARCH, SHAPE, WRITERS, Small


def _compare(side: Any) -> None:
    side.prepare([SHAPE])
    side.run([np.zeros(SHAPE, np.float32)], layers=True)


USES: dict[str, Callable[[Path], Any]] = {
    "import": lambda path: import_model(path, shapes=[SHAPE]),
    "import for its own shape": lambda path: import_model(path),
    "compile": lambda path: compile_file(path, path.with_suffix(".so"), shapes=[SHAPE]),
    "compress": lambda path: load_network(path, shape=SHAPE),
    "compare": lambda path: _compare(
        OnnxSide(path) if path.suffix == ".onnx" else TorchSide(path, None, None)
    ),
}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each thing is done."""
    found: Counter[str] = Counter()

    def count(place: Any, name: str, what: str) -> None:
        original = getattr(place, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            found[what] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(place, name, counted)

    count(onnx, "load", "parsed")
    count(onnx.checker, "check_model", "checked")
    count(onnx_network, "fold", "folded")
    count(zipfile.ZipFile, "infolist", "directory read")
    count(torch.export, "export", "captured")
    return found


@pytest.mark.parametrize("use", USES)
def test_an_onnx_file(use: str, tmp_path: Path, counts: Counter[str]) -> None:
    export_onnx(Small().eval(), (torch.rand(SHAPE),), tmp_path / "m.onnx")
    counts.clear()
    USES[use](tmp_path / "m.onnx")
    assert counts == {"parsed": 1, "checked": 1, "folded": 1}


def test_an_onnx_file_for_two_shapes_is_folded_for_each(
    tmp_path: Path, counts: Counter[str]
) -> None:
    export_onnx(Small().eval(), (torch.rand(SHAPE),), tmp_path / "m.onnx")
    counts.clear()
    import_model(tmp_path / "m.onnx", shapes=[SHAPE, (2, *SHAPE[1:])])
    assert counts == {"parsed": 1, "checked": 1, "folded": 2}


@pytest.mark.parametrize("kind", ["script.pt", "program.pt2"])
@pytest.mark.parametrize("use", [use for use in USES if "own" not in use])
def test_a_torch_file(use: str, kind: str, tmp_path: Path, counts: Counter[str]) -> None:
    WRITERS[kind](Small().eval(), tmp_path / kind)
    counts.clear()
    USES[use](tmp_path / kind)
    assert counts["directory read"] == 1
    assert counts["captured"] == (1 if kind == "script.pt" else 0)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_safetensors_file(
    compressed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    if compressed:
        options = {"num_classes": 7, "in_channels": 3, "width": 4}
        state = build("resnet20", **options).state_dict()
        file = CompressedFile(arch="subpc:resnet20", arch_options=options, state_dict=state)
        save_compressed(path, file)
    else:
        WRITERS["state.safetensors"](Small(), path)
    opened: list[Path] = []

    def counted(path: Path, *args: Any) -> Any:
        opened.append(path)
        return safe_open(path, *args)

    for place in (safetensors_file, safetensors.torch):
        monkeypatch.setattr(place, "safe_open", counted)
    load_torch_file(path, arch=None if compressed else ARCH)
    assert opened == [path]
