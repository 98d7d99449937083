"""Whatever is done with a model file, it is read, checked and folded once."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import subpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.comparison.compare import compare
from subpc.compression.compress import compress_file
from subpc.frontend.files import archive, load_file
from subpc.frontend.files.pt2 import check as pt2_check
from subpc.frontend.from_onnx import network as onnx_network
from subpc.frontend.from_onnx.model import external
from subpc.frontend.from_torch import export, network
from subpc.frontend.import_model import import_model
from subpc.frontend.load_network import load_network
from tests.frontend.small_model import SHAPE, Small, save_script

Use = Callable[[Path, Path], object]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file is parsed, checked, folded and captured."""
    found: Counter[str] = Counter()

    def count(place: Any, name: str, word: str) -> None:
        original = getattr(place, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            found[word] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(place, name, counted)

    count(onnx, "load", "parsed")
    count(onnx.checker, "check_model", "checked")
    count(onnx_network, "fold", "folded")
    for place in (archive.Archive, load_file.torch):
        count(place, "__init__" if place is archive.Archive else "load", "opened" if place is archive.Archive else "loaded")
    count(torch.export, "export", "captured")
    return found
