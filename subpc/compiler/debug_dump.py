"""The program after each phase of a compile, as files for those who look for a mistake in it."""

from collections.abc import Callable
from pathlib import Path

from subpc.errors import ConfigError
from subpc.files import write_whole

# The last phase: kernel calls instead of a module.
PROGRAM = "program"


def make_folder(folder: str | Path) -> None:
    """Make the folder for the files, if it is not there; ConfigError where that is not possible."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot make the folder {folder}: {reason}; choose another one"
        ) from error


def dumper(folder: str | Path | None, index: int) -> Callable[[str, str], None] | None:
    """What to call with (phase, program) of the network for input shape `index`; None where no
    folder is given."""
    if folder is None:
        return None
    root = Path(folder)
    counter = iter(range(1000))

    def dump(phase: str, script: str) -> None:
        # Modules are TVM script, which is Python; the lowered program is a list.
        ending = "txt" if phase == PROGRAM else "py"
        write_whole(root / f"{index}-{next(counter):02d}-{phase}.{ending}", script)

    return dump
