"""Object files in, one shared object out, with whatever linker the machine has."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from subpc.errors import CompileError, WriteError

# Compiler drivers first; the bare linkers do as well, because the code needs nothing but the C
# library that Python has loaded.
LINKERS = ("cc", "gcc", "clang", "ld", "ld.lld")

# With fewer bytes free, that is why a linker failed.
_LITTLE = 1 << 20


def find_linker() -> Path:
    """The linker to use; raises CompileError that says how to get one."""
    for name in LINKERS:
        found = shutil.which(name)
        if found:
            return Path(os.path.abspath(found))
    raise CompileError(
        f"no linker found (looked for {', '.join(LINKERS)}); install one, on Debian or Ubuntu: apt"
        " install gcc. Only compiling needs it, running a library does not"
    )


def link(objects: Sequence[Path], output: Path) -> None:
    """Link object files into a shared object without debug information, all of them in one folder.

    Linkers read spaces, quotes and line breaks in names each in its own way: they get names alone,
    and the folder to work in.
    """
    linker, folder = find_linker(), output.parent
    # A response file, because a network may have more object files than a command line takes.
    response = output.with_suffix(".objects")
    response.write_text("\n".join(path.relative_to(folder).name for path in objects))
    command = [str(linker), "-shared", "-s", "-o", output.name, f"@{response.name}"]
    # Its own temporary files go to the same folder: TMPDIR may be full, and what a killed linker
    # leaves is removed with the folder.
    environment = {**os.environ, "TMPDIR": os.path.abspath(folder)}
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    response.unlink()
    if result.returncode:
        free = shutil.disk_usage(folder).free
        if free < _LITTLE:
            words = (
                f"the linker has too little space for temporary files in {folder.parent},"
                f" {free // 1000} kB"
            )
            raise WriteError(f"{words}; free space there, or set TMPDIR to another folder")
        raise CompileError(f"{linker} failed: {' '.join(result.stderr.split())[-600:]}")
