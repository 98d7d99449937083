"""Object files: written by Python, because LLVM ends the process where it cannot write."""

import subprocess
import sys
from pathlib import Path

import pytest
import tvm

from subpc.passes import object_files
from subpc.passes.object_files import write_module

CODE = """
import sys
from pathlib import Path
import tvm
from subpc.passes.object_files import write_module
from subpc.schedules.launch_clock import launch_clock
try:
    write_module(launch_clock(), tvm.target.Target({"kind": "llvm"}), Path(sys.argv[1]))
except OSError as error:
    print(error.strerror)
"""


def _module() -> tvm.IRModule:
    from subpc.schedules.launch_clock import launch_clock

    return launch_clock()


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "/dev/full"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "No space left on device\n")


@pytest.mark.parametrize("proc", [True, False], ids=["through memory", "without /proc"])
def test_an_object_file_is_the_same_either_way(
    proc: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not proc:
        monkeypatch.setattr(object_files, "_DESCRIPTORS", str(tmp_path / "none"))
    target = tvm.target.Target({"kind": "llvm"})
    path = write_module(_module(), target, tmp_path / "a.o")
    direct = tmp_path / "b.o"
    tvm.tirx.build(_module(), target=target).write_to_file(str(direct))
    assert path.read_bytes() == direct.read_bytes()
