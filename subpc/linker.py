"""Object files in, one shared object out, with whatever linker the machine has."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from subpc.errors import CompileError

# Compiler drivers first; the bare linkers do as well, because the code needs nothing but the C library that Python has loaded.
LINKERS = ("cc", "gcc", "clang", "ld", "ld.lld")


def find_linker() -> Path:
    """The linker to use; raises CompileError that says how to get one."""
    for name in LINKERS:
        found = shutil.which(name)
        if found:
            return Path(found)
    raise CompileError(
        f"no linker found (looked for {', '.join(LINKERS)}); install one, on Debian or Ubuntu: apt install gcc. "
        "Only compiling needs it, running a library does not"
    )


def link(objects: Sequence[Path], output: Path) -> None:
    """Link object files into a shared object without debug information."""
    linker = find_linker()
    # A response file, because a network may have more object files than a command line takes.
    response = output.with_suffix(".objects")
    response.write_text("\n".join(f'"{path}"' for path in objects))
    result = subprocess.run([str(linker), "-shared", "-s", "-o", str(output), f"@{response}"], capture_output=True, text=True, check=False)
    response.unlink()
    if result.returncode:
        raise CompileError(f"{linker} failed: {result.stderr.strip()[-600:]}")
