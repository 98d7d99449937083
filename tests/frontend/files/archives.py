"""Archives of PyTorch's as dictionaries, to change what is in them."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Members = dict[str, bytes]


class Malicious:
    """Leaves a mark when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def read(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def member(members: Members, ending: str) -> str:
    return next(name for name in members if name.endswith(ending))


def with_json(members: Members, ending: str, change: Callable[[Any], None]) -> Members:
    """The members with the JSON in one of them changed in place; characters stay as they are,
    without escapes."""
    name = member(members, ending)
    value = json.loads(members[name])
    change(value)
    return {**members, name: json.dumps(value, ensure_ascii=False).encode()}
