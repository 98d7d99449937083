"""Load a library and run it: the part of subpc that a deployment needs."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from subpc.errors import ConfigError
from subpc.files import write_whole
from subpc.library.artifact import Artifact, check_cpu, open_artifact
from subpc.library.report import CompileReport, FunctionInfo, ResultInfo, TensorInfo
from subpc.library.shared_library import Library
from subpc.machine.cpu import missing_features
from subpc.machine.threads import resolve_threads
from subpc.machine.timing import Timing, measure
from subpc.runtime.entry_point import EntryPoint
from subpc.runtime.tensors import check_dtype, is_torch, ready, to_numpy, to_torch

if TYPE_CHECKING:
    from subpc.profiling.profile import Profile
    from subpc.runtime.tensors import Value

Array = npt.NDArray[Any]


def load(path: str | Path, threads: int | None = None) -> "CompiledModel":
    """Load a library that `subpc compile` wrote.

    Args:
        path: the file.
        threads: how many to use; None means all CPUs this process may use (affinity mask and
            control-group quota).

    Returns:
        A model that is called with PyTorch tensors or numpy arrays.

    Raises:
        ModelFileError: not a subpc library, damaged, or of another format version.
        TargetError: this CPU lacks an instruction set that the library uses.
        ConfigError: threads is not between 1 and the CPUs that can be used.
    """
    artifact = open_artifact(path)
    check_cpu(artifact)
    return CompiledModel(artifact, threads=threads)


class CompiledModel:
    """A compiled network. Safe to call from many threads at once; each call in flight has its own
    workspace.

    One that was compiled for another CPU can be saved and looked at, but not called. The file that
    the artifact was opened from may be removed or replaced once the model exists.
    """

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        self.threads = resolve_threads(threads)
        self._artifact = artifact
        self._entries = (
            {}
            if missing_features(artifact.metadata.features)
            else self._link(artifact, self.threads)
        )

    @staticmethod
    def _link(artifact: Artifact, threads: int) -> dict[tuple[tuple[int, ...], ...], EntryPoint]:
        library = Library(memoryview(artifact.image)[: artifact.code_bytes], str(artifact.path))
        functions = artifact.metadata.functions
        return {
            tuple(t.shape for t in f.inputs): EntryPoint(library, f, artifact.weights, threads)
            for f in functions
        }

    def __repr__(self) -> str:
        return f"<CompiledModel {self.report.headline}, {self.threads} threads>"

    @property
    def report(self) -> CompileReport:
        """What was decided for each layer, and why."""
        return CompileReport(metadata=self._artifact.metadata)

    @property
    def functions(self) -> tuple[FunctionInfo, ...]:
        """The entry points, one for each set of input shapes."""
        return self._artifact.metadata.functions

    def __call__(self, *inputs: "Value") -> Any:
        """Run the network.

        Args:
            inputs: one PyTorch tensor or numpy array for each input, in order.

        Returns:
            The output, or a tuple if there are several; PyTorch tensors if any input was one, else
            numpy arrays.

        Raises:
            ConfigError: wrong number, shape or type of inputs; the message lists what is accepted.
        """
        outputs = self._run(inputs)
        results = [to_torch(o) for o in outputs] if any(is_torch(i) for i in inputs) else outputs
        return results[0] if len(results) == 1 else tuple(results)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, shape and type of each input of the first function; `functions` has the others."""
        return self.functions[0].inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, shape and type of each output of the first function."""
        return self.functions[0].outputs

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names that `run` takes, in the order of a call."""
        return tuple(t.name for t in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names that `run` returns, in the order of a call."""
        return tuple(t.name for t in self.outputs)

    def run(self, inputs: "Mapping[str, Value]") -> dict[str, Any]:
        """Run the network with inputs and outputs by name.

        Args:
            inputs: an array or tensor for each of `input_names`.

        Raises:
            ConfigError: a name is missing or unknown, or a shape or type is not accepted; one line
                says what is.
        """
        names = self.input_names
        if not isinstance(inputs, Mapping) or set(inputs) != set(names):
            given = (
                f"inputs {', '.join(map(repr, inputs))}"
                if isinstance(inputs, Mapping)
                else f"a {type(inputs).__name__}"
            )
            raise ConfigError(
                f"{given or 'nothing'} was given, the model takes a dictionary with"
                f" {', '.join(map(repr, names))}"
            )
        values = [inputs[name] for name in names]
        outputs = self._run(values)
        results = [to_torch(o) for o in outputs] if any(is_torch(v) for v in values) else outputs
        return dict(zip(self.output_names, results, strict=True))

    def _run(self, values: "Sequence[Value]") -> list[Array]:
        entry, arrays = self._accept(values)
        return entry.call(arrays)

    def _accept(self, values: "Sequence[Value]") -> tuple[EntryPoint, list[Array]]:
        """The function for these shapes, and the inputs as kernels read them."""
        if not self._entries:
            check_cpu(self._artifact)
        infos = self.functions[0].inputs
        if len(values) != len(infos):
            raise ConfigError(
                f"{len(values)} inputs were given, the model takes {len(infos)}:"
                f" {', '.join(t.name for t in infos)}"
            )
        arrays = [to_numpy(value, info.name) for value, info in zip(values, infos, strict=True)]
        entry = self._entries.get(tuple(a.shape for a in arrays))
        if entry is None:
            seen = ", ".join(str(a.shape) for a in arrays)
            accepted = " or ".join(", ".join(map(str, shapes)) for shapes in self._entries)
            raise ConfigError(
                f"input of shape {seen} was given, this library takes {accepted}; compile it with"
                " --shape for other shapes"
            )
        for array, info in zip(arrays, entry.info.inputs, strict=True):
            check_dtype(array, info)
        return entry, [ready(a, info) for a, info in zip(arrays, entry.info.inputs, strict=True)]

    def save(self, path: str | Path) -> Path:
        """Write the library to a file, in one step; it can be loaded on any machine with the CPU
        features that it lists."""
        write_whole(path, self._artifact.image)
        return Path(path)

    def benchmark(
        self, *, runs: int = 40, warmup: int = 10, shapes: Sequence[tuple[int, ...]] | None = None
    ) -> Timing:
        """Time whole calls on random input; the median of at least 40 runs is what to quote."""
        entry, arrays = self._accept(self.random_inputs(shapes))
        return measure(lambda: entry.call(arrays), runs=runs, warmup=warmup)

    def profile(
        self,
        *,
        runs: int = 20,
        warmup: int = 5,
        shapes: Sequence[tuple[int, ...]] | None = None,
        probes: bool = True,
    ) -> "Profile":
        """Time every step alone, by the layer's original name, beside the time of whole calls.

        probes: measure this machine's peak and the balance of the workers too, where the compiler
        is installed.
        """
        from subpc.profiling.profile_function import profile_function

        entry, arrays = self._accept(self.random_inputs(shapes))
        with entry.lane() as lane:
            entry.bind(lane, arrays)
            options: dict[str, Any] = {
                "threads": self.threads,
                "runs": runs,
                "warmup": warmup,
                "probes": probes,
            }
            run = partial(entry.steps, lane)
            return profile_function(
                self._artifact.metadata, entry.info, entry.library, run, **options
            )

    def trace(
        self, inputs: "Sequence[Value]"
    ) -> tuple[list[Array], dict[str, tuple[Array, ResultInfo]]]:
        """The outputs, and each layer's result (n, c, ...) by its original name, with what was
        fused into it."""
        from subpc.library.layer_results import read_result

        entry, arrays = self._accept(inputs)
        results: dict[str, tuple[Array, ResultInfo]] = {}
        with entry.lane() as lane:
            outputs = entry.bind(lane, arrays)
            for index, step in enumerate(entry.info.steps):
                entry.steps(lane, index, index + 1)
                if step.result is not None:
                    space = (
                        lane.workspace
                        if step.result.space == "workspace"
                        else outputs[step.result.index]
                    )
                    results[step.layer] = read_result(step.result, space), step.result
        return outputs, results

    def random_inputs(self, shapes: Sequence[tuple[int, ...]] | None = None) -> list[Array]:
        """Seeded inputs of the shapes given, or of the library's first function."""
        from subpc.runtime.choose_function import choose_function
        from subpc.runtime.random_inputs import random_inputs

        return random_inputs(choose_function(self.functions, shapes).inputs)
