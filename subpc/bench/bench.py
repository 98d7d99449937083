"""A compiled library timed beside other engines: same model, same input, same threads, each alone
in its own process."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from subpc.bench.engines import ENGINES, INT8, load_inputs
from subpc.bench.model_files import RivalFiles
from subpc.bench.process import Worker, WorkerError
from subpc.bench.report import BenchReport, EngineResult
from subpc.errors import ConfigError, SubpcError
from subpc.frontend.input_shapes import InputShape
from subpc.images.prepare import Preparation
from subpc.library.artifact import read_metadata
from subpc.library.report import FLOATS, INTEGERS, CompileReport, FunctionInfo
from subpc.machine.cpu import cpu_name, idle_cpus
from subpc.machine.threads import resolve_threads
from subpc.machine.timing import summarize
from subpc.progress import Progress
from subpc.runtime.arrays import save_arrays
from subpc.runtime.choose_function import choose_function
from subpc.runtime.deviation import share_of_range
from subpc.runtime.random_inputs import random_inputs
from subpc.scratch import scratch_folder
from subpc.versions import version

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

# Several short turns instead of one long: a machine that speeds up or slows down meanwhile does so
# for every engine.
ROUNDS = 4


def time_engines(
    library: str | Path,
    rivals: Sequence[str] = (),
    *,
    model: "nn.Module | ExportedProgram | str | Path | None" = None,
    libraries: Mapping[str, Path] | None = None,
    shapes: Sequence[tuple[int, ...]] | None = None,
    threads: int | None = None,
    runs: int = 40,
    warmup: int = 10,
    rounds: int = ROUNDS,
    calibration: Any = None,
    preparation: Preparation | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Time a library beside other engines.

    Args:
        library: what `subpc compile` wrote.
        rivals: of onnxruntime, openvino, torch, torch-compile, onnxruntime-int8, openvino-int8.
            The last two get the model quantized by their own tools (NNCF for OpenVINO).
        model: the model that the library was compiled from, for the rivals: a module, a program, or
            an .onnx or .pt2 file.
        libraries: more compiled libraries to run beside the first one, by the name to show, as
            "subpc dense"; the report has them last.
        shapes: input shapes, for a library with several functions.
        threads: for every engine; None means the CPUs this process may use.
        runs: timed calls of each engine, over all rounds; at least 40 for a result to quote.
        warmup: calls before the timed ones, in each round.
        rounds: how often the engines take turns.
        calibration: what the tools of the -int8 engines take ranges from, as `compile` has it; None
            means random numbers, which are enough for times. preparation: how its images become
            inputs.
        progress: called with (what, done, total).

    Returns:
        Times, percentiles, memory and agreement of outputs, for every engine; an engine that failed
        says why.
    """
    _check(rivals, model, runs, warmup, rounds)
    count, metadata = resolve_threads(threads), read_metadata(library)
    function = choose_function(metadata.functions, shapes)
    samples = None if calibration is None else _samples(calibration, function, preparation)
    tell = progress or (lambda stage, done, total: None)
    with scratch_folder("bench") as folder, ExitStack() as stack:
        inputs = _write_inputs(function, Path(folder))
        files = RivalFiles(
            model, _marked(function), Path(folder), threads=count, calibration=samples
        )
        started: dict[str, Worker | str] = {}
        entries = {"subpc": Path(library), **dict.fromkeys(rivals), **(libraries or {})}
        for index, (name, path) in enumerate(entries.items()):
            tell(f"{'quantizing for' if name in INT8 else 'loading'} {name}", index, len(entries))
            started[name] = _start(
                name, path or files, stack, threads=count, inputs=inputs, folder=Path(folder)
            )
        ours = started["subpc"]
        if isinstance(ours, str):
            raise SubpcError(f"{library} cannot be run: {ours}")
        idle = math.inf
        for turn in range(rounds):
            idle = min(
                idle, idle_cpus()
            )  # all workers are stopped: who is running now is somebody else
            _round(started, turn, -(-runs // rounds), warmup, rounds, tell)
        results = tuple(
            _result(
                EngineResult(
                    engine=name,
                    version=_version(name, files.details.get(name)),
                    precision=_precision(name, entries[name]),
                ),
                worker,
                ours,
            )
            for name, worker in started.items()
        )
    headline = CompileReport(metadata=metadata).headline
    facts: dict[str, Any] = {
        "runs": runs,
        "warmup": warmup,
        "rounds": rounds,
        "idle_cpus": min(idle, float(count)),
    }
    input_shapes = tuple(t.shape for t in function.inputs)
    return BenchReport(
        headline=headline,
        cpu=cpu_name(),
        threads=count,
        shapes=input_shapes,
        engines=results,
        **facts,
    )


def _check(rivals: Sequence[str], model: object, runs: int, warmup: int, rounds: int) -> None:
    known = [name for name in ENGINES if name != "subpc"]
    wrong = [name for name in rivals if name not in known]
    if wrong or len(set(rivals)) != len(rivals):
        raise ConfigError(f"engines {', '.join(rivals)}: accepted, each once: {', '.join(known)}")
    if rivals and model is None:
        raise ConfigError(
            "comparing needs the model that the library was compiled from; give it with --model"
            " FILE (and --arch)"
        )
    if rounds < 1 or runs < rounds or warmup < 0:
        raise ConfigError(
            f"runs is {runs}, rounds {rounds}, warmup {warmup}; runs has to be at least rounds,"
            " rounds at least 1"
        )


def _marked(function: FunctionInfo) -> list[InputShape]:
    return [InputShape(t.shape, name=t.name, dtype=t.dtype) for t in function.inputs]


def _samples(
    calibration: Any, function: FunctionInfo, preparation: Preparation | None
) -> list[npt.NDArray[Any]]:
    """An array (samples, *its shape) for each input."""
    from subpc.calibration.given import calibration_inputs

    given = calibration_inputs(calibration, function.inputs, preparation or Preparation())
    pairs = zip(given.arrays, function.inputs, strict=True)
    return [x.numpy().reshape(-1, *info.shape) for x, info in pairs]


def _write_inputs(function: FunctionInfo, folder: Path) -> Path:
    arrays = zip(function.inputs, random_inputs(function.inputs), strict=True)
    save_arrays(folder / "inputs.npz", {info.name: array for info, array in arrays})
    return folder / "inputs.npz"


def _start(name: str, source: Path | RivalFiles, stack: ExitStack, **options: Any) -> Worker | str:
    """A worker that has given its first answer, or why there is none."""
    try:
        engine, path = ("subpc", source) if isinstance(source, Path) else (name, source.path(name))
        worker = Worker(name, engine, path, **options)
    except (WorkerError, ConfigError) as error:
        return str(error)
    stack.callback(worker.close)
    return worker


def _round(
    started: dict[str, Worker | str], turn: int, runs: int, warmup: int, rounds: int, tell: Progress
) -> None:
    for index, (engine, worker) in enumerate(started.items()):
        tell(f"running {engine}", turn * len(started) + index, rounds * len(started))
        if isinstance(worker, Worker):
            try:
                worker.turn(runs, warmup)
            except WorkerError as error:
                started[engine] = str(error)


def _result(result: EngineResult, worker: Worker | str, ours: Worker) -> EngineResult:
    """`result` with what the worker measured, or with why it did not."""
    if isinstance(worker, str):
        return replace(result, failure=worker)
    deviation = (
        None
        if worker is ours
        else difference(load_inputs(str(ours.outputs)), load_inputs(str(worker.outputs)))
    )
    return replace(
        result,
        difference=deviation,
        timing=summarize(worker.milliseconds),
        first_answer_ms=worker.first_answer_ms,
        peak_mb=worker.peak_mb,
    )


def _version(engine: str, detail: str | None) -> str:
    package = engine.split()[0].split("-")[0]
    return ", ".join(filter(None, (version(package) or "not installed", detail)))


def _precision(engine: str, library: Path | None) -> str:
    if library is not None:
        return read_metadata(library).precision
    return INTEGERS if engine in INT8 else FLOATS


def difference(
    ours: dict[str, npt.NDArray[Any]], theirs: dict[str, npt.NDArray[Any]]
) -> float | None:
    """Largest deviation of any output, as a share of that output's range; None where the outputs
    have different shapes.

    Of masks, class numbers and other outputs that are no floating-point numbers it is the share of
    elements that differ.
    """
    if [a.shape for a in ours.values()] != [a.shape for a in theirs.values()]:
        return None
    return max(
        (_deviation(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True)), default=0.0
    )


def _deviation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    if a.dtype.kind != "f" or b.dtype.kind != "f":
        return float((a != b).mean()) if a.size else 0.0
    return share_of_range(a, b)
