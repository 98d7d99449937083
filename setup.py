"""What pyproject.toml cannot say: one wheel for every Python, and two lines instead of a page where
there is no C compiler."""

import os
import shlex
import subprocess
import sys
import sysconfig

from setuptools import setup

_BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
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


if _BUILDING & set(sys.argv) and not compiles():
    sys.exit(
        f"subpc needs a C compiler and the headers of the C library, and {compiler()[0]} does not"
        " compile here.\nInstall them, on Debian or Ubuntu: apt install gcc libc6-dev; or name"
        " another compiler in the environment variable CC."
    )
# The worker pool uses nothing of Python: one wheel serves every version.
setup(options={"bdist_wheel": {"py_limited_api": "cp310"}})
