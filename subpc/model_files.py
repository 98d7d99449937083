"""The files that a model consists of."""

import os
import sys
from pathlib import Path

from subpc.errors import ModelFileError
from subpc.onnx_places import external_places

# What a file with a network in it may be.
ACCEPTED = (
    "Accepted: .pt2, TorchScript .pt, state dicts (.pt, .pth, .safetensors) with --arch, and .onnx."
)


def check_file(path: Path) -> None:
    """ModelFileError unless `path` is a readable file with something in it."""
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a directory, not a model file. {ACCEPTED}")
        if path.exists() and not path.is_file():
            raise ModelFileError(f"{path} is a device or pipe, not a model file. {ACCEPTED}")
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}.") from error
    if not head:
        raise ModelFileError(f"{path} is empty.")
    if head == b"\x7fELF":
        raise ModelFileError(
            f"{path} is a library, compiled already: `subpc run {path}`, or `subpc inspect {path}`."
            f" {ACCEPTED}"
        )


def model_files(path: str | Path) -> list[Path]:
    """`path`, and the files beside it that an ONNX model keeps its weights in; `path` alone where
    that cannot be read."""
    path = Path(path)
    if path.suffix != ".onnx" or not os.path.isfile(path):
        return [path]
    try:
        return [path, *(path.parent / place for place in external_places(path))]
    except (OSError, ValueError):  # whatever is wrong with the file, its import says it
        return [path]


def arch_files(arch: str | None) -> list[Path]:
    """The Python files that `package.module:function` may be in, without importing anything; none
    for other names."""
    module = (arch or "").rpartition(":")[0]
    stem = Path(*module.split(".")) if module else None
    if stem is None or stem.is_absolute():
        return []
    places = [
        Path(folder) / form
        for folder in (".", *sys.path)
        for form in (stem.with_suffix(".py"), stem / "__init__.py")
    ]
    return [place for place in places if os.path.isfile(place)]
