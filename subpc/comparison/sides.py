"""The two models of a comparison, each behind the same few calls, whatever kind of file it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subpc.comparison.align_layers import Fused, Traced
from subpc.errors import ConfigError
from subpc.files import only_regular
from subpc.frontend.input_shapes import Input, InputShape, group_shapes, shapes_for_one

Array = npt.NDArray[Any]
Shapes = list[tuple[int, ...]]


class LibrarySide:
    """A compiled library."""

    kind, engine, suffix = "library", "subpc", ".so"

    def __init__(self, path: Path, threads: int | None) -> None:
        from subpc.runtime.model import load

        self.path, self._model = path, load(path, threads)

    @property
    def shapes(self) -> list[Shapes]:
        """The sets of input shapes that it takes."""
        functions = self._model.functions
        return [
            [InputShape(t.shape, name=t.name, dtype=t.dtype) for t in function.inputs]
            for function in functions
        ]

    @property
    def inputs(self) -> list[Input]:
        """Names and types; sizes may differ from function to function."""
        return [Input(name=t.name, dtype=t.dtype) for t in self._model.inputs]

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._model.output_names

    def prepare(self, shapes: Shapes) -> None:
        """Nothing to do: the library was made for its shapes."""

    def run(self, inputs: Sequence[Array], *, layers: bool) -> Traced:
        """Outputs of one batch, and each layer's result by name; inputs: (n, ...) each, as prepared
        for."""
        if not layers:
            outputs = self._model(*inputs)
            return Traced(
                outputs=list(outputs) if isinstance(outputs, tuple) else [outputs], layers={}
            )
        values, results = self._model.trace(inputs)
        weighted = {layer.name for layer in self._model.report.layers}
        layers_ = {
            name: Fused(value=value, info=info)
            for name, (value, info) in results.items()
            if name in weighted
        }
        return Traced(outputs=values, layers=dict(layers_))

    def worker_file(self, shapes: Shapes, folder: Path) -> Path:
        """What a worker process loads to be timed."""
        return self.path


class TorchSide:
    """A PyTorch model file."""

    kind, engine, suffix = "PyTorch", "torch", ".pt2"

    def __init__(self, path: Path, arch: str | None, part: str | None) -> None:
        from subpc.frontend.architectures.default_shape import assumed
        from subpc.frontend.example_inputs import model_inputs
        from subpc.frontend.files.load_file import load_torch_file

        self.path = path
        loaded = load_torch_file(path, arch=arch, part=part)
        self._model, self.inputs = loaded.model, model_inputs(loaded.model)
        shape = loaded.input_shape or loaded.assumed_shape
        self.shapes = static_shapes(self.inputs) or ([[InputShape(shape)]] if shape else [])
        self.assumed = assumed(loaded.arch, shape) if shape and not loaded.input_shape else ""
        self.output_names: tuple[str, ...] = ()

    def prepare(self, shapes: Shapes) -> None:
        """Export for inputs of these shapes."""
        from subpc.frontend.example_inputs import example_for
        from subpc.frontend.from_torch.network import exported_network
        from subpc.frontend.from_torch.trace import TorchTracer

        self._tracer = TorchTracer(exported_network(self._model, tuple(map(example_for, shapes))))

    def run(self, inputs: Sequence[Array], *, layers: bool) -> Traced:
        """Outputs of one batch, and each layer's result by name, operator by operator; inputs: (n,
        ...) each."""
        import torch

        trace = self._tracer.run(tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
        return Traced(outputs=list(trace.outputs), layers=dict(trace.layers) if layers else {})

    def worker_file(self, shapes: Shapes, folder: Path) -> Path:
        """The model, exported."""
        from subpc.bench.model_files import RivalFiles

        return RivalFiles(self._model, shapes, folder).path("torch")


class OnnxSide:
    """An ONNX file."""

    kind, engine, suffix = "ONNX", "onnxruntime", ".onnx"

    def __init__(self, path: Path) -> None:
        from subpc.frontend.from_onnx.network import OnnxFile

        self.path, self._file = path, OnnxFile(path)
        self.inputs = self._file.inputs
        self.shapes = static_shapes(self.inputs)
        self.output_names = self._file.output_names

    def prepare(self, shapes: Shapes) -> None:
        """Fix the shapes."""
        from subpc.frontend.from_onnx.trace import OnnxTracer

        self._tracer = OnnxTracer(self._file.network(shapes))

    def run(self, inputs: Sequence[Array], *, layers: bool) -> Traced:
        """Outputs of one batch, and each layer's result by name; inputs: (n, ...) each, as prepared
        for."""
        trace = self._tracer.run(list(inputs))
        return Traced(outputs=list(trace.outputs), layers=dict(trace.layers) if layers else {})

    def worker_file(self, shapes: Shapes, folder: Path) -> Path:
        """The file itself."""
        return self.path


def static_shapes(inputs: Sequence[Input]) -> list[Shapes]:
    """The one set of shapes of inputs whose sizes are all known, with 1 for an open batch; nothing
    where another is open."""
    try:
        return [list(shapes_for_one(inputs))]
    except ConfigError:
        return []


Side = LibrarySide | TorchSide | OnnxSide


def open_side(
    path: Path, *, arch: str | None, part: str | None = None, threads: int | None
) -> Side:
    """The model in `path`, or its part where it is a PyTorch model; the errors are those of `load`
    and `compile`."""
    if path.suffix == ".onnx":
        from subpc.model_files import check_file

        check_file(path)
        return OnnxSide(path)
    try:
        with open(path, "rb", opener=only_regular) as file:
            library = file.read(4) == b"\x7fELF"
    except OSError:
        library = False
    if library or path.suffix == ".so":
        return LibrarySide(path, threads)
    from subpc.model_files import check_file

    check_file(path)
    return TorchSide(path, arch, part)


def common_shapes(a: Side, b: Side, wanted: Shapes | None) -> Shapes:
    """Input shapes that both models take; ConfigError where there are none, or where neither
    says."""
    fixed = [side for side in (a, b) if isinstance(side, LibrarySide)]
    candidates = (
        [s for s in fixed[0].shapes if all(s in other.shapes for other in fixed)]
        if fixed
        else [*a.shapes, *b.shapes]
    )
    if fixed and not candidates:
        raise ConfigError(
            f"{a.path} takes {_listed(a)}, {b.path} takes {_listed(b)}; compile both for one shape"
            " with --shape"
        )
    if wanted is None:
        if not candidates:
            raise ConfigError(
                "neither model says its input shape; give one, such as --shape 1,3,224,224, or"
                " arrays with --data x.npy"
            )
        return _typed(candidates[0], a, b)
    names = {name for shape in wanted if (name := getattr(shape, "name", ""))}
    knowing = [
        side
        for side in (_best_described(a, b), a, b)
        if names <= {info.name for info in side.inputs}
    ]
    groups = group_shapes(wanted, (knowing or [_best_described(a, b)])[0].inputs)
    if len(groups) > 1:
        raise ConfigError(
            f"{len(groups)} sets of input shapes were given; two models are compared on one"
        )
    chosen: Shapes = list(groups[0])
    if fixed and chosen not in candidates:
        # Another batch size will do: the samples are cut into batches.
        candidates = [
            s for s in candidates if [shape[1:] for shape in s] == [shape[1:] for shape in chosen]
        ]
        if not candidates:
            seen = " and ".join(",".join(map(str, shape)) for shape in chosen)
            raise ConfigError(
                f"input of shape {seen} was given, {fixed[0].path} takes {_listed(fixed[0])};"
                " compile it with --shape"
            )
        return candidates[0]
    return _typed(chosen, a, b)


def _best_described(a: Side, b: Side) -> Side:
    """The model that says the types of its inputs, a where both or none do."""
    return next((side for side in (a, b) if all(info.dtype for info in side.inputs)), a)


def _typed(shapes: Shapes, a: Side, b: Side) -> Shapes:
    """Shapes with the types that one of the models says."""
    inputs = _best_described(a, b).inputs
    if len(inputs) != len(shapes):
        return shapes
    return [
        InputShape(s, name=i.name, dtype=getattr(s, "dtype", "") or i.dtype)
        for s, i in zip(shapes, inputs, strict=True)
    ]


def _listed(side: Side) -> str:
    return " or ".join(
        " and ".join(",".join(map(str, shape)) for shape in shapes) for shapes in side.shapes
    )
