"""The same network as files that the other engines read."""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from subpc.bench.engines import INT8
from subpc.bench.process import ask_once
from subpc.errors import ConfigError, SubpcError
from subpc.frontend.from_torch.to_onnx_file import export_onnx
from subpc.frontend.messages import first_line
from subpc.frontend.one_at_a_time import capturing
from subpc.library.report import TensorInfo
from subpc.runtime.arrays import save_arrays
from subpc.runtime.random_inputs import random_inputs

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    Source: TypeAlias = nn.Module | ExportedProgram | str | Path

READS_ONNX = ("onnxruntime", "openvino")
# Random samples that ranges of activations are taken from where no images are given: enough for
# times, which do not depend on the ranges.
_RANDOM_SAMPLES = 16


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
    """Writes the model once for each file format, and quantized by each engine, that is asked for.

    shapes: of the inputs, which may say names and types; threads, calibration (for each
    of them samples (k, *shape)): for the tools that quantize. details: {engine: what its version
    does not say}.
    """

    def __init__(
        self,
        model: "nn.Module | ExportedProgram | str | Path | None",
        shapes: Sequence[tuple[int, ...]],
        folder: Path,
        *,
        threads: int = 1,
        calibration: Sequence[npt.NDArray[Any]] | None = None,
    ) -> None:
        self._model, self._shapes, self._folder = model, shapes, folder
        self._threads, self._calibration = threads, calibration
        self._written: dict[str, Path] = {}
        self.details: dict[str, str] = {}

    def path(self, engine: str) -> Path:
        """The file for an engine."""
        if engine in INT8:
            return self._once(engine, self._quantize)
        return self._once(".onnx" if engine in READS_ONNX else ".pt2", self._write)

    def _once(self, what: str, write: Callable[[str], Path]) -> Path:
        if what not in self._written:
            self._written[what] = write(what)
        return self._written[what]

    def _quantize(self, engine: str) -> Path:
        samples = self._folder / "calibration.npz"
        if not samples.exists():
            save_arrays(samples, self._samples())
        spec = {
            "engine": engine,
            "model": str(self._once(".onnx", self._write)),
            "calibration": str(samples),
            "output": str(self._folder / engine),
            "threads": self._threads,
        }
        answer = ask_once("subpc.bench.quantize", spec, self._folder)
        self.details[engine] = answer["detail"]
        return Path(answer["model"])

    def _samples(self) -> dict[str, npt.NDArray[Any]]:
        """(samples, *its shape) of each input."""
        if self._calibration is None:
            infos = [
                TensorInfo(
                    name=str(index),
                    shape=(_RANDOM_SAMPLES, *shape),
                    dtype=getattr(shape, "dtype", "") or "float32",
                )
                for index, shape in enumerate(self._shapes)
            ]
            return {i.name: a for i, a in zip(infos, random_inputs(infos), strict=True)}
        return {str(index): array for index, array in enumerate(self._calibration)}

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

        assert self._model is not None and not isinstance(self._model, str | Path)
        return exported_network(self._model, inputs).program


def _module_of(program: "ExportedProgram") -> Any:
    """A program as a module that an exporter takes: its mode is written into it, and it raises
    where somebody sets one."""
    module: Any = program.module()
    module.training, module.train = False, lambda mode=True: module
    return module
