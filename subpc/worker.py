"""Processes that work for this one and end with it, however it ends.

`python -m subpc.worker MODULE ARGUMENTS` runs MODULE's `main()`: first of all, before anything slow
is imported, the process asks the kernel for its end with its parent's. The kernel does that too for
a process that is stopped or busy in native code.
"""

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

_PARENT = "SUBPC_PARENT"
_PR_SET_PDEATHSIG = 1


def worker_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `main()` of a module of ours."""
    return [sys.executable, "-m", "subpc.worker", module, *arguments]


def worker_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of that command."""
    return {**os.environ, **changes, "PYTHONSAFEPATH": "1", _PARENT: str(os.getpid())}


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it, or process `parent`, has
    ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


def main() -> None:
    """Be a worker."""
    end_with_parent(int(os.environ[_PARENT]))
    del sys.argv[0]
    module: Any = importlib.import_module(sys.argv[0])
    module.main()


if __name__ == "__main__":
    main()
