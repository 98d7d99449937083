"""A signal ends a command as such, also where what it interrupts turns it into an error of its own,
as half-done imports do."""

import subprocess
import sys

import pytest

CODE = """
import importlib, os, signal
from subpc.cli.main import main
from subpc.errors import ModelFileError

def half_done(name):
    try:
        os.kill(os.getpid(), signal.{signal})
        sum(range(1000))
    except BaseException:
        raise {error} from None

importlib.import_module = half_done
main(["inspect", "m.so"])
"""
ERRORS = [
    "RecursionError('too deep')",
    "ImportError('half of it')",
    "ModelFileError('m.so cannot be read')",
]


def ended(name: str, error: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(signal=name, error=error)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("error", ERRORS)
def test_ctrl_c(error: str) -> None:
    assert ended("SIGINT", error) == (130, "interrupted\n")


@pytest.mark.parametrize("error", ERRORS)
def test_sigterm(error: str) -> None:
    assert ended("SIGTERM", error) == (143, "")
