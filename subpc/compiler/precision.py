"""What `precision` and `calibration` ask of the passes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.errors import ConfigError
from subpc.images.prepare import Preparation
from subpc.library.report import FLOATS, INTEGERS, MIXED, PRECISIONS
from subpc.progress import Progress, silent
from subpc.schedules.isa import VectorIsa

if TYPE_CHECKING:
    import tvm

    from subpc.passes.pipeline import Quantize, Rewritten


def check_precision(precision: str, calibration: Any) -> None:
    """ConfigError for a precision that there is not, and for images that nothing would read."""
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision={precision!r} is not supported; accepted: {', '.join(PRECISIONS)}"
        )
    if calibration is not None and precision == FLOATS:
        raise ConfigError(
            f"calibration images are read for precision {INTEGERS!r} and {MIXED!r} alone, and the"
            f" precision is {precision!r}; ask for {INTEGERS!r} or {MIXED!r}, or leave them out."
        )


def calibration_files(calibration: Any) -> list[str | Path]:
    """The files that are read, for a check that none of them is written."""
    if not isinstance(calibration, str | Path):
        return []
    text = str(calibration)
    return [part for part in (text, text.partition(":")[2]) if part]


def quantizer(
    precision: str,
    calibration: Any,
    preparation: Preparation,
    notes: list[str],
    progress: Progress | None,
    isa: VectorIsa,
) -> "Quantize | None":
    """What rounds a network's values to codes, None where it computes in floats.

    notes: what there is to say of the images, and of what "auto" chose, is added to it.
    """
    if precision == FLOATS:
        return None
    if precision == MIXED and not isa.dot:
        notes.append(
            f"{MIXED}: everything in {FLOATS}, because the target has {isa.name} alone, without"
            " instructions that multiply bytes"
        )
        return None

    def run(network: "Rewritten") -> "tvm.IRModule":
        from subpc.calibration.best import WITHOUT, choose_calibration
        from subpc.calibration.given import calibration_inputs
        from subpc.calibration.mixed import mix
        from subpc.calibration.quantize import Settings, quantize
        from subpc.images.unlabelled import skipped_notes

        settings, arrays = Settings(pairs=isa.dot == "madd"), None
        if calibration is not None:
            given = calibration_inputs(calibration, network.inputs, preparation, progress or silent)
            notes.extend(skipped_notes(given.skipped))
            arrays = given.arrays
        if precision == MIXED:
            mixed = mix(network, arrays, settings, isa)
            notes.append(f"{MIXED}: {mixed.note}")
            return mixed.module
        if arrays is None:
            return quantize(network, settings=settings)
        choice = choose_calibration(network, arrays, settings, progress or silent)
        notes.append(
            f"calibrated without images, which was closer than with {given.label}"
            if choice.way == WITHOUT
            else f"calibrated with {given.label} ({choice.way})"
        )
        return choice.calibrated.rounded()

    return run
