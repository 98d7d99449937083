"""What a compile is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subpc.compiler.debug_dump import make_folder
from subpc.compiler.precision import check_precision
from subpc.images.prepare import Preparation
from subpc.passes.sparse_modes import check_sparse
from subpc.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `compile` was asked for; see there."""

    example_inputs: Any = None
    shapes: Sequence[tuple[int, ...]] | None = None
    arch: str | None = None
    trust_pickle: bool = False
    part: str | None = None
    target: str = "llvm -mcpu=native"
    threads: int
    precision: str = "float32"
    calibration: Any = None
    preparation: Preparation = field(default_factory=Preparation)
    sparse: str = "auto"
    tuning: str | Path | None = "auto"
    tuning_any_cpu: bool = False
    progress: Progress | None = None
    debug_dump: str | Path | None = None


def check_options(
    precision: str, sparse: str, debug_dump: str | Path | None, calibration: Any = None
) -> None:
    """Raise before the work that a wrong option would waste."""
    check_precision(precision, calibration)
    check_sparse(sparse)
    if debug_dump is not None:
        make_folder(debug_dump)
