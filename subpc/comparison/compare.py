"""Compare two models: how far their outputs and layers are apart, and the time and size of each."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subpc.bench.process import Worker, WorkerError
from subpc.comparison.deviations import layer_errors, output_error
from subpc.comparison.report import ComparisonReport, LayerError, OutputError, SideInfo
from subpc.comparison.samples import (
    Samples,
    check_types,
    dtype_of,
    random_samples,
    read_arrays,
    read_folder,
)
from subpc.comparison.sides import Shapes, Side, TorchSide, common_shapes, open_side
from subpc.errors import ConfigError, SubpcError
from subpc.frontend.input_shapes import InputShape, as_shapes
from subpc.images.input import layout_of
from subpc.images.prepare import Preparation
from subpc.library.report import TensorInfo
from subpc.machine.threads import resolve_threads
from subpc.machine.timing import summarize
from subpc.progress import Progress
from subpc.runtime.arrays import save_arrays
from subpc.scratch import scratch_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The layers of so many samples are kept at once, and no more: all activations of a network are
# large.
LAYER_SAMPLES = 8
_ROUNDS = 4
# How images become inputs, and at most how many samples are read.
DEFAULT_LIMIT = 256


def compare(
    a: str | Path,
    b: str | Path,
    data: str | Path | None = None,
    *,
    arch: str | None = None,
    part: str | None = None,
    shapes: Sequence[tuple[int, ...]] | None = None,
    preparation: Preparation | None = None,
    limit: int = DEFAULT_LIMIT,
    threads: int | None = None,
    runs: int = 40,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Compare model b with model a, the reference.

    Args:
        a, b: compiled libraries, PyTorch files or ONNX files, in any combination. Each is run by an
            engine of its own kind: subpc, PyTorch, ONNX Runtime (or ONNX's reference).
        data: a .npy or .npz file, or a folder of images; random numbers without it.
        arch, part: architecture of state dicts and part of PyTorch models, as for compile.
        shapes: input shapes, one an input, where neither model says.
        preparation: how images become inputs; without it, ImageNet's at the models' size.
        limit: at most so many samples.
        threads: for timing; None means the CPUs this process may use.
        runs: timed calls of each; 0 leaves timing out.

    Raises:
        SubpcError: a file cannot be read or run, the models take different inputs, or there are no
            samples.
    """
    if limit < 1 or runs < 0:
        raise ConfigError(
            f"limit is {limit} and runs {runs}; limit has to be 1 or more, runs 0 or more"
        )
    threads, tell = resolve_threads(threads), progress or (lambda stage, done, total: None)
    sides = tuple(open_side(Path(path), arch=arch, part=part, threads=threads) for path in (a, b))
    samples, shapes_ = _samples(sides, data, shapes, preparation, limit)
    for side in sides:
        tell(f"preparing {side.path.name}", 0, 1)
        side.prepare(shapes_)
    outputs = _outputs(sides, samples, shapes_[0][0], tell)
    rows, skipped, by_order = _layers(sides, samples, shapes_[0][0])
    infos = [
        SideInfo(name=str(s.path), kind=s.kind, engine=s.engine, file_bytes=s.path.stat().st_size)
        for s in sides
    ]
    timed = _times(sides, infos, shapes_, threads, runs, tell) if runs else infos
    return ComparisonReport(
        a=timed[0],
        b=timed[1],
        data="; ".join([samples.source, *_assumptions(sides, shapes, data)]),
        samples=samples.count,
        layer_samples=min(samples.count, max(LAYER_SAMPLES, shapes_[0][0])),
        outputs=outputs,
        layers=tuple(rows),
        skipped=skipped,
        by_order=by_order,
    )


def _samples(
    sides: tuple[Side, ...],
    data: str | Path | None,
    shapes: Sequence[tuple[int, ...]] | None,
    preparation: Preparation | None,
    limit: int,
) -> tuple[Samples, Shapes]:
    """What to run on, and the shapes of one batch of it."""
    wanted, path = as_shapes(shapes), Path(data) if data is not None else None
    if path is not None and not os.path.exists(path):
        raise ConfigError(f"{path} does not exist; give a folder of images or a .npy file")
    if path is None:
        chosen = common_shapes(sides[0], sides[1], wanted)
        return random_samples(chosen), chosen
    if os.path.isdir(path):
        chosen = common_shapes(sides[0], sides[1], wanted)
        if len(chosen) != 1:
            raise ConfigError(
                f"images need models with one input; these take {chosen}; give --data x.npz with an"
                " array for each"
            )
        info = TensorInfo(
            name=getattr(chosen[0], "name", "") or "the input",
            shape=(1, *chosen[0][1:]),
            dtype=dtype_of(chosen[0]),
        )
        return (
            read_folder(path, info, preparation or Preparation(size=layout_of(info).width), limit),
            chosen,
        )
    samples = read_arrays(path, limit)
    given = wanted or [InputShape((1, *array.shape[1:])) for array in samples.arrays]
    chosen = common_shapes(sides[0], sides[1], given)
    check_types(samples, chosen, path)
    return samples, chosen


def _assumptions(sides: tuple[Side, ...], shapes: Any, data: str | Path | None) -> list[str]:
    """What was assumed of the input where neither model, nor the user, said its shape."""
    if (
        shapes
        or (data is not None and not os.path.isdir(data))
        or not all(isinstance(side, TorchSide) for side in sides)
    ):
        return []
    return [side.assumed for side in sides if isinstance(side, TorchSide) and side.assumed][:1]


def _outputs(
    sides: tuple[Side, ...], samples: Samples, batch: int, tell: Progress
) -> tuple[OutputError, ...]:
    """The outputs of all samples, compared."""
    collected: list[list[list[NDArray[Any]]]] = [[], []]
    batches = samples.batches(batch)
    for done, (arrays, count) in enumerate(batches):
        tell("comparing outputs", done, len(batches))
        for side, parts in zip(sides, collected, strict=True):
            parts.append([output[:count] for output in side.run(arrays, layers=False).outputs])
    first, second = (
        [np.concatenate(parts) for parts in zip(*side, strict=True)] for side in collected
    )
    if [o.shape for o in first] != [o.shape for o in second]:
        raise ConfigError(
            f"the outputs have different shapes: {[o.shape[1:] for o in first]} and"
            f" {[o.shape[1:] for o in second]}"
        )
    names = sides[0].output_names or sides[1].output_names
    names = names if len(names) == len(first) else tuple(f"output{i}" for i in range(len(first)))
    return tuple(output_error(name, x, y) for name, x, y in zip(names, first, second, strict=True))


def _layers(
    sides: tuple[Side, ...], samples: Samples, batch: int
) -> tuple[list[LayerError], dict[str, str], tuple[str, ...]]:
    batches = samples.batches(batch, LAYER_SAMPLES)
    return layer_errors(
        (sides[0].run(arrays, layers=True), sides[1].run(arrays, layers=True))
        for arrays, _ in batches
    )


def _times(
    sides: tuple[Side, ...],
    infos: list[SideInfo],
    shapes: Shapes,
    threads: int,
    runs: int,
    tell: Progress,
) -> list[SideInfo]:
    """Each engine alone in a process of its own, taking turns."""
    with scratch_folder("compare") as name, ExitStack() as stack:
        folder = Path(name)
        arrays = random_samples(shapes).batches(shapes[0][0])[0][0]
        save_arrays(folder / "inputs.npz", {f"input{i}": array for i, array in enumerate(arrays)})
        started: list[Worker | str] = []
        for label, side in zip("ab", sides, strict=True):
            own = folder / label
            own.mkdir()
            started.append(_start(side, shapes, own, folder / "inputs.npz", threads, stack))
        rounds = min(_ROUNDS, runs)
        for turn in range(rounds):
            tell("timing", turn, rounds)
            for worker in started:
                if isinstance(worker, Worker):
                    worker.turn(-(-runs // rounds), 10)
        return [
            (
                replace(info, failure=worker)
                if isinstance(worker, str)
                else replace(info, timing=summarize(worker.milliseconds))
            )
            for info, worker in zip(infos, started, strict=True)
        ]


def _start(
    side: Side, shapes: Shapes, folder: Path, inputs: Path, threads: int, stack: ExitStack
) -> Worker | str:
    try:
        worker = Worker(
            side.kind,
            side.engine,
            side.worker_file(shapes, folder),
            threads=threads,
            inputs=inputs,
            folder=folder,
        )
    except (WorkerError, SubpcError) as error:
        return str(error)
    stack.callback(worker.close)
    return worker
