"""What pyproject.toml cannot say: packages in folders with other names, one wheel for every Python,
and two lines instead of a page where there is no C compiler."""

import os
import shlex
import subprocess
import sys
import sysconfig

from setuptools import find_packages, setup

_BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
# Folders beside subpc/ that are packages in it.
_ROOMS = ("algorithms", "cli", "frontend", "passes", "schedules")
_HEADERS = b"#include <pthread.h>\n#include <stdlib.h>\n"


def compiler() -> list[str]:
    """The command that setuptools compiles C with."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def compiles() -> bool:
    """Whether there is a compiler, with the C library's headers."""
    command = [*compiler(), "-E", "-x", "c", "-o", os.devnull, "-"]
    try:
        return (
            subprocess.run(command, input=_HEADERS, capture_output=True, check=False).returncode
            == 0
        )
    except OSError:
        return False


def packages() -> list[str]:
    """Every folder with an __init__.py, by the name that it is imported by."""
    inside = [f"subpc.{name}" for room in _ROOMS for name in (room, *_below(room))]
    return ["subpc", *(f"subpc.{name}" for name in find_packages("subpc")), *inside]


def _below(room: str) -> list[str]:
    return [f"{room}.{name}" for name in find_packages(room)]


if _BUILDING & set(sys.argv) and not compiles():
    sys.exit(
        f"subpc needs a C compiler and the headers of the C library, and {compiler()[0]} does not"
        " compile here.\nInstall them, on Debian or Ubuntu: apt install gcc libc6-dev; or name"
        " another compiler in the environment variable CC."
    )
# The worker pool uses nothing of Python: one wheel serves every version.
setup(packages=packages(), options={"bdist_wheel": {"py_limited_api": "cp310"}})
