"""The same network as files that the other engines read."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from subpc.errors import ConfigError, SubpcError
from subpc.frontend.from_torch.to_onnx_file import export_onnx
from subpc.frontend.messages import first_line
from subpc.frontend.one_at_a_time import capturing

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    Source: TypeAlias = nn.Module | ExportedProgram | str | Path

READS_ONNX = ("onnxruntime", "openvino")


def _write_onnx(
    model: "nn.Module | ExportedProgram", inputs: "tuple[torch.Tensor, ...]", path: Path
) -> None:
    """Any PyTorch model as ONNX; ConfigError where it cannot be written."""
    import torch

    module: Any = model.eval() if isinstance(model, torch.nn.Module) else _module_of(model)
    try:
        with torch.no_grad():
            module(*inputs)  # shapes that do not fit are refused by the network itself
        export_onnx(module, inputs, path)
    except SubpcError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{type(model).__name__} cannot be written as ONNX: {first_line(error)}; pass the ONNX"
            " file as --model"
        ) from error


class RivalFiles:
    """Writes the model once for each file format that is asked for."""

    def __init__(
        self,
        model: "nn.Module | ExportedProgram | str | Path",
        shapes: Sequence[tuple[int, ...]],
        folder: Path,
    ) -> None:
        self._model, self._shapes, self._folder = model, shapes, folder
        self._written: dict[str, Path] = {}

    def path(self, engine: str) -> Path:
        """The file for an engine."""
        suffix = ".onnx" if engine in READS_ONNX else ".pt2"
        if suffix not in self._written:
            self._written[suffix] = self._write(suffix)
        return self._written[suffix]

    def _write(self, suffix: str) -> Path:
        if isinstance(self._model, str | Path):
            if Path(self._model).suffix == suffix:
                return Path(self._model)
            raise ConfigError(
                f"{self._model} cannot be run by this engine; it needs the PyTorch model"
            )
        return self._export(self._folder / f"model{suffix}")

    @capturing()
    def _export(self, path: Path) -> Path:
        import torch

        from subpc.frontend.example_inputs import example_for

        inputs = tuple(map(example_for, self._shapes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix == ".pt2":
                # Into memory first: PyTorch's writer ends the whole process when a disk is full.
                torch.export.save(self._program(inputs), memory := io.BytesIO())
                path.write_bytes(memory.getbuffer())
            else:
                _write_onnx(
                    (
                        self._model
                        if isinstance(self._model, torch.nn.Module)
                        else self._program(inputs)
                    ),
                    inputs,
                    path,
                )
        return path

    def _program(self, inputs: "tuple[torch.Tensor, ...]") -> "ExportedProgram":
        from subpc.frontend.from_torch.network import exported_network

        assert not isinstance(self._model, str | Path)
        return exported_network(self._model, inputs).program


def _module_of(program: "ExportedProgram") -> Any:
    """A program as a module that an exporter takes: its mode is written into it, and it raises
    where somebody sets one."""
    module: Any = program.module()
    module.training, module.train = False, lambda mode=True: module
    return module
