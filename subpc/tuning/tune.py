"""`subpc.tuning.tune`: measure schedules for a network's layers inside the network, and keep the
records in a database."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.compiler.compile_model import rewritten
from subpc.errors import ConfigError, TargetError
from subpc.files import check_outputs
from subpc.library.report import FLOATS
from subpc.machine.cpu import cpu_name, missing_features
from subpc.machine.linker import find_linker
from subpc.machine.target import Target, parse_target
from subpc.machine.threads import available_threads, resolve_threads
from subpc.model_files import arch_files, model_files
from subpc.scratch import scratch_folder
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.record import Machine
from subpc.tuning.build_candidates import Builder
from subpc.tuning.measure import LocalMeasurer, Measurer
from subpc.tuning.report import ShowProgress, TuneReport
from subpc.tuning.rounds import Tuner
from subpc.versions import versions

if TYPE_CHECKING:
    from subpc.passes.pipeline import Rewritten

MIN_BUDGET = 1.0
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(text: str) -> float:
    """`90s`, `10m`, `1.5h` -> seconds; ConfigError for anything else."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    try:
        seconds = float(number) * UNITS[unit]
    except (ValueError, KeyError):
        seconds = float("nan")
    if not MIN_BUDGET <= seconds < float("inf"):
        raise ConfigError(
            f"budget {text!r} is not a time of a second or more with its unit; accepted: 90s, 10m,"
            " 1.5h"
        )
    return seconds


def machine_of(target: Target, threads: int, cpu: str | None = None) -> Machine:
    """What measurements of this process hold for."""
    found = versions()
    return Machine(
        cpu=cpu or cpu_name(),
        target=str(target),
        threads=threads,
        subpc=found.get("subpc", ""),
        tvm=found.get("apache-tvm", ""),
    )


def tune(
    model: Any,
    example_inputs: Any = None,
    *,
    database: str | Path,
    budget: float | str = "10m",
    trials: int | None = None,
    shapes: Sequence[tuple[int, ...]] | None = None,
    arch: str | None = None,
    trust_pickle: bool = False,
    part: str | None = None,
    target: str = "llvm -mcpu=native",
    threads: int | None = None,
    sparse: str = "auto",
    precision: str = FLOATS,
    tracker: str | None = None,
    device_key: str | None = None,
    progress: ShowProgress | None = None,
) -> TuneReport:
    """Search faster schedules for a network's convolutions on this CPU, or on machines behind a
    tracker.

    Every candidate runs inside the whole network, in turns with the best so far, so that it finds
    its operands where they are in use. Each measurement is appended to the database as it is made;
    a later call starts from them.

    Args:
        model, example_inputs, shapes, arch, trust_pickle, part, sparse, precision: as for
            `subpc.compile`; one set of input shapes. Schedules are for layers of one precision, and
            depend on no values: int8 needs no images here.
        database: JSON-lines file to read and to append to.
        budget: seconds, or text such as "10m".
        trials: stop after this many candidates, too.
        target, threads: what to tune for; records hold for these only.
        tracker: HOST:PORT of a TVM RPC tracker; device_key: key of the devices to measure on.
        progress: called with a TuneProgress.

    Raises:
        SubpcError: ConfigError, TargetError, ModelFileError, UnsupportedModelError, CompileError or
            TuningError.
    """
    seconds = parse_budget(budget) if isinstance(budget, str) else parse_budget(f"{budget}s")
    if trials is not None and trials < 1:
        raise ConfigError(f"trials is {trials}; it has to be 1 or more")
    if (tracker is None) != (device_key is None):
        raise ConfigError(
            "a tracker and a device key go together: give both, as in --tracker 10.0.0.5:9190"
            " --device-key avx512"
        )
    deadline, parsed = time.monotonic() + seconds, parse_target(target)
    count = resolve_threads(threads) if tracker is None else threads or parsed.num_cores or 1
    if tracker is None and missing_features(parsed.features):
        raise TargetError(
            f"this CPU lacks {', '.join(missing_features(parsed.features)[:5])} of target"
            f" {target!r}; tune where it runs"
        )
    find_linker()
    if isinstance(model, str | Path):
        check_outputs([database], [*model_files(model), *arch_files(arch)])
    tuning_db.check_writable(database)
    tuning_db.read(database, missing_ok=True)
    options: dict[str, Any] = {
        "arch": arch,
        "trust_pickle": trust_pickle,
        "part": part,
        "isa": parsed.isa,
        "sparse": sparse,
        "precision": precision,
    }
    notes: list[str] = []
    models = rewritten(model, example_inputs, shapes=shapes, notes=notes, **options)
    if len(models) != 1:
        raise ConfigError(
            f"{len(models)} input shapes were given; tune for one at a time, into the same database"
        )
    with scratch_folder("tune") as folder:
        devices, cpu = _devices(tracker, device_key, count, parsed, Path(folder))
        machine = machine_of(parsed, count, cpu)
        report = _run(
            models[0],
            parsed,
            Path(folder),
            devices,
            machine,
            Path(database),
            deadline,
            trials,
            progress,
        )
    return replace(report, notes=(*notes, *report.notes))


def _devices(
    tracker: str | None, key: str | None, threads: int, target: Target, folder: Path
) -> tuple[list[Callable[[], Measurer]], str | None]:
    """How to get a measurer, once for each machine, and the machines' CPU (None: this one)."""
    if tracker is None or key is None:
        return [lambda: LocalMeasurer(threads)], None
    from subpc.tuning.measure_remote import remote_devices

    return remote_devices(tracker, key, threads, target, folder)


def _run(
    model: "Rewritten",
    target: Target,
    folder: Path,
    devices: list[Callable[[], Measurer]],
    machine: Machine,
    database: Path,
    deadline: float,
    trials: int | None,
    progress: ShowProgress | None,
) -> TuneReport:
    builder = Builder(model, target, folder, available_threads())
    try:
        tuner = Tuner(builder, devices, machine, database, deadline)
        try:
            tuner.search(trials, progress)
            return tuner.finish(progress)
        finally:
            tuner.close()
    finally:
        builder.close()
