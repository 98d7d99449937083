"""The two models of a comparison, each behind the same few calls, whatever kind of file it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.comparison_layers import Fused, Traced
from subpc.errors import ConfigError

Array = npt.NDArray[Any]
Shapes = list[tuple[int, ...]]


class LibrarySide:
    """A compiled library."""

    kind, engine, suffix = "library", "subpc", ".so"

    def __init__(self, path: Path, threads: int | None) -> None:
        from subpc.runtime import load

        self.path, self._model = path, load(path, threads)

    @property
    def shapes(self) -> list[Shapes]:
        """The sets of input shapes that it takes."""
        return [[t.shape for t in function.inputs] for function in self._model.functions]

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._model.output_names

    def prepare(self, shapes: Shapes) -> None:
        """Nothing to do: the library was made for its shapes."""

    def run(self, inputs: Sequence[Array], *, layers: bool) -> Traced:
        """Run one batch."""
        if not layers:
            outputs = self._model(*inputs)
            return Traced(outputs=list(outputs) if isinstance(outputs, tuple) else [outputs], layers={})
        values, results = self._model.trace(inputs)
        weighted = {layer.name for layer in self._model.report.layers}
        layers_ = {name: Fused(value=value, info=info) for name, (value, info) in results.items() if name in weighted}
        return Traced(outputs=values, layers=dict(layers_))

    def worker_file(self, shapes: Shapes, folder: Path) -> Path:
        """What a worker process loads to be timed."""
        return self.path


class TorchSide:
    """A PyTorch model file."""

    kind, engine, suffix = "PyTorch", "torch", ".pt2"

    def __init__(self, path: Path, arch: str | None) -> None:
        from subpc.frontend.load_file import load_torch_file

        self.path = path
        loaded = load_torch_file(path, arch=arch)
        self._model, self.shapes = loaded.model, [[loaded.input_shape]] if loaded.input_shape else list[Shapes]()
        self.output_names: tuple[str, ...] = ()

    def prepare(self, shapes: Shapes) -> None:
        """Export for inputs of these shapes."""
        import torch

        from subpc.frontend.trace_torch import TorchTracer

        self._tracer = TorchTracer(self._model, tuple(torch.rand(shape) for shape in shapes))

    def run(self, inputs: Sequence[Array], *, layers: bool) -> Traced:
        """Run one batch, operator by operator."""
        import torch

        trace = self._tracer.run(tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
        return Traced(outputs=list(trace.outputs), layers=dict(trace.layers) if layers else {})

    def worker_file(self, shapes: Shapes, folder: Path) -> Path:
        """The model, exported."""
        from subpc.bench_models import RivalFiles

        return RivalFiles(self._model, shapes, folder).path("torch")


class OnnxSide:
    """An ONNX file."""

    kind, engine, suffix = "ONNX", "onnxruntime", ".onnx"

    def __init__(self, path: Path) -> None:
        from subpc.frontend.onnx_file import read_onnx
        from subpc.frontend.onnx_graph import user_inputs

        self.path, model = path, read_onnx(path)
        shapes = [tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in user_inputs(model.graph)]
        self.shapes = [shapes] if all(shape and min(shape) > 0 for shape in shapes) else list[Shapes]()
        self.output_names = tuple(value.name for value in model.graph.output)

    def prepare(self, shapes: Shapes) -> None:
        """Fix the shapes."""
        from subpc.frontend.trace_onnx import OnnxTracer

        self._tracer = OnnxTracer(self.path, shapes)

    def run(self, inputs: Sequence[Array], *, layers: bool) -> Traced:
        """Run one batch."""
        trace = self._tracer.run(list(inputs))
        return Traced(outputs=list(trace.outputs), layers=dict(trace.layers) if layers else {})

    def worker_file(self, shapes: Shapes, folder: Path) -> Path:
        """The file itself."""
        return self.path


Side = LibrarySide | TorchSide | OnnxSide


def open_side(path: Path, *, arch: str | None, threads: int | None) -> Side:
    """The model in `path`; the errors are those of `load` and `compile`."""
    if path.suffix == ".onnx":
        from subpc.frontend.load_file import check_file

        check_file(path)
        return OnnxSide(path)
    try:
        with path.open("rb") as file:
            library = file.read(4) == b"\x7fELF"
    except OSError:
        library = False
    if library or path.suffix == ".so":
        return LibrarySide(path, threads)
    from subpc.frontend.load_file import check_file

    check_file(path)
    return TorchSide(path, arch)


def common_shapes(a: Side, b: Side, wanted: Shapes | None) -> Shapes:
    """Input shapes that both models take; ConfigError where there are none, or where neither says."""
    fixed = [side for side in (a, b) if isinstance(side, LibrarySide)]
    candidates = [s for s in fixed[0].shapes if all(s in other.shapes for other in fixed)] if fixed else [*a.shapes, *b.shapes]
    if fixed and not candidates:
        raise ConfigError(f"{a.path} takes {a.shapes}, {b.path} takes {b.shapes}; compile both for one shape with --shape")
    if wanted is None:
        if not candidates:
            raise ConfigError("neither model says its input shape; give one, such as --shape 1,3,224,224, or arrays with --data x.npy")
        return candidates[0]
    if fixed and wanted not in candidates:
        # Another batch size will do: the samples are cut into batches.
        candidates = [s for s in candidates if [shape[1:] for shape in s] == [shape[1:] for shape in wanted]]
        if not candidates:
            raise ConfigError(f"input of shape {wanted} was given, {fixed[0].path} takes {fixed[0].shapes}; compile it with --shape")
        return candidates[0]
    return wanted
