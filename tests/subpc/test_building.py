"""Installing from source where nothing compiles C: two lines, before anything is copied."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("broken", ["no-such-compiler", "false"])
def test_without_a_compiler_two_lines_say_what_to_install(broken: str, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "build", "--build-base", str(tmp_path / "build")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CC": broken},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.strip().splitlines()
    assert f"{broken} does not compile" in first
    assert "apt install gcc" in second
    assert not (tmp_path / "build").exists()
