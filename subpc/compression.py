"""Compress networks: modules in memory, and model files into the compressed format that `compile` takes."""

import importlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from subpc.algorithms.config import Config
    from subpc.algorithms.data_free_report import DataFreeReport
    from subpc.algorithms.quantizers import Quantized

Progress = Callable[[str, int, int], None]
# Configuration -> the function that takes (model, configuration, progress), and its module.
METHODS = {
    "UdfcConfig": ("subpc.algorithms.udfc.compress", "compress_udfc"),
    "DfmpcConfig": ("subpc.algorithms.dfmpc.compress", "compress_dfmpc"),
    "BlockConfig": ("subpc.algorithms.blocks.compress", "compress_blocks"),
}


def compress(model: "nn.Module", config: "Config") -> "tuple[nn.Module, DataFreeReport]":
    """The compressed copy of `model`, and what was done to each layer. `model` is not changed.

    Raises:
        SubpcError: ConfigError, ModelFileError or UnsupportedModelError.
    """
    smaller, _, report = _run(model, config, _silent)
    return smaller, report


def compress_file(
    path: str | Path, config: "Config", output: str | Path, *, arch: str | None = None, progress: Progress | None = None
) -> "DataFreeReport":
    """Compress the weights in `path` and write the compressed model file `output`, whole or not at all.

    arch: as in subpc.compile; files in the compressed format name theirs. Bit widths and scales travel in the file.
    """
    from torch import nn

    from subpc.algorithms.compressed import CompressedFile, save_compressed
    from subpc.frontend.load_file import check_file, load_torch_file

    path, output = Path(path), Path(output)
    check_file(path)
    if not output.parent.is_dir():
        raise ConfigError(f"the folder {output.parent} does not exist; choose another output.")
    loaded = load_torch_file(path, arch=arch)
    named, options = (arch, dict[str, Any]()) if arch is not None else _architecture(path)
    if not isinstance(loaded.model, nn.Module):
        raise ConfigError(f"{path.name} is an exported program. {_NEEDED}")
    model, codes, report = _run(loaded.model, config, progress or _silent)
    file = CompressedFile(
        arch=named,
        arch_options=options,
        state_dict=model.state_dict(),
        config={"method": report.method, **config.to_dict()},
        report=_plain(asdict(report)),
        packed=codes,
    )
    save_compressed(output, file)
    return report


_NEEDED = "Compression needs a state dict with --arch, or a file that subpc compressed."


def _architecture(path: Path) -> tuple[str, dict[str, Any]]:
    """Name and options in a compressed file; ConfigError for a file that carries its own code."""
    import zipfile

    from subpc.algorithms.compressed import load_compressed
    from subpc.errors import ModelFileError

    try:
        file = load_compressed(path)
    except (ModelFileError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path.name} does not name its architecture. {_NEEDED}") from error
    return file.arch, file.arch_options


def _run(model: "nn.Module", config: "Config", progress: Progress) -> "tuple[nn.Module, dict[str, Quantized], DataFreeReport]":
    kind = type(config).__name__
    if kind not in METHODS:
        raise ConfigError(f"compress takes {' or '.join(METHODS)}, got {kind}.")
    module, function = METHODS[kind]
    result: tuple[nn.Module, dict[str, Quantized], DataFreeReport] = getattr(importlib.import_module(module), function)(
        model, config, progress
    )
    return result


def _plain(value: Any) -> Any:
    """Tuples as lists: what a file may hold."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""
