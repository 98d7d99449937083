"""What has to be true where a program of torch.export is refused."""

import sys
from pathlib import Path

import pytest

from subpc.errors import ModelFileError
from subpc.frontend.import_model import import_model
from tests.frontend.files.archives import Members, write
from tests.frontend.small_model import SHAPE

# Runs where anything evaluates it: makes the folder that `refused` looks for.
CODE = "__import__('os').mkdir('executed')"


def refused(
    members: Members, folder: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...] = SHAPE
) -> str:
    """The message of the refusal; fails where the file loads, or did something."""
    monkeypatch.chdir(folder)
    modules = set(sys.modules)
    with pytest.raises(ModelFileError) as caught:
        import_model(write(folder / "m.pt2", members), shapes=[shape])
    assert not (folder / "executed").exists()
    assert "antigravity" not in set(sys.modules) - modules
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    assert message.isprintable() or message.replace("\n", "").isprintable()
    return message
