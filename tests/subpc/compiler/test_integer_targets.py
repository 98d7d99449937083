"""int8 for a CPU that does not multiply bytes: said before any work is done, and nothing is
written."""

from pathlib import Path

import pytest
import torch
from torch import nn

import subpc
from subpc.errors import TargetError
from subpc.tuning.tune import tune

WORDS = r"int8 needs .* has (generic|avx512f) alone\.\nCompile for the CPU that will run it"


@pytest.fixture(autouse=True)
def _without_import(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was imported")

    monkeypatch.setattr("subpc.frontend.import_model.import_model", fail)


@pytest.mark.parametrize("target", ["llvm", "llvm -mcpu=knl"])
def test_a_target_without_instructions_for_bytes_is_refused(target: str, tmp_path: Path) -> None:
    output = tmp_path / "net.so"
    output.write_text("the user's")
    with pytest.raises(TargetError, match=WORDS):
        subpc.compile(
            nn.Conv2d(3, 8, 1),
            torch.rand(1, 3, 4, 4),
            precision="int8",
            target=target,
            output=output,
        )
    assert output.read_text() == "the user's"


def test_nor_is_it_tuned_for(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=WORDS):
        tune(
            nn.Conv2d(3, 8, 1),
            torch.rand(1, 3, 4, 4),
            database=tmp_path / "t.jsonl",
            precision="int8",
            target="llvm",
        )
