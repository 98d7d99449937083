"""Worker processes end within a second of their parent, however it ends and whatever they are
doing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from subpc.images.folder import ImageFolder
from subpc.images.prepare import Preparation
from subpc.worker import worker_command

SECONDS = 1.0
# A parent says which processes it has started, and waits to be killed.
REPORT = """
import os, psutil, sys, time
def report(count):
    while len(found := psutil.Process().children(recursive=True)) < count: time.sleep(0.01)
    print(*(child.pid for child in found), flush=True)
"""
LAUNCH = """
import subprocess
from subpc.worker import worker_command, worker_environment
command, environment = worker_command("slow_module"), worker_environment({})
child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
"""
WAITING = "import time\ntime.sleep(60)\n"
READING = "import sys\ndef main():\n    while True:\n        for line in sys.stdin: pass\n"
NATIVE = (  # holds the interpreter's lock: no thread of Python runs
    "import ctypes\nctypes.PyDLL(None).sleep(60)\n"
)
POOL = """
from subpc.passes.compile_pool import CompilePool
pool = CompilePool(2, 100.0)
work = [pool.submit(time.sleep, 60) for _ in range(2)]
"""
IMAGES = """
import threading
from subpc.images import folder as image_folder
from subpc.images.prepare import Preparation
image_folder._Reader._read = lambda *_: time.sleep(60)
items = [("a.png", 0), ("b.png", 1)]
images = image_folder.ImageFolder(items, preparation=Preparation(size=8), workers=2)
import torch
reader = lambda: next(images.training([torch.tensor([0]), torch.tensor([1])], 0))
"""


def _killed(code: str, folder: Path, *, stop: bool = False) -> None:
    """Start a parent, kill it once its children are there, and wait for their end."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    parent = subprocess.Popen(
        [sys.executable, "-c", REPORT + code], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert children
    if stop:
        for child in children:
            child.send_signal(signal.SIGSTOP)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=SECONDS)
    for child in alive:
        child.kill()
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("stop", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize(
    "module", [WAITING, READING, NATIVE], ids=["importing", "reading", "in native code"]
)
def test_a_worker_ends_with_its_parent(module: str, stop: bool, tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(module)
    # The kernel is asked before the module is imported; give the interpreter the time to start.
    _killed(LAUNCH + "time.sleep(1.0)\nreport(1)\ntime.sleep(60)\n", tmp_path, stop=stop)


def test_a_worker_whose_parent_has_ended_before_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text("def main(): print('working')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for parent, words in ((os.getpid(), "working\n"), (2**22 + 1, "")):
        command = worker_command("slow_module")
        done = subprocess.run(
            command,
            env={**environment, "SUBPC_PARENT": str(parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.returncode == 0) == (words, words != "")


@pytest.mark.slow
def test_compiling_processes_end_with_their_parent(tmp_path: Path) -> None:
    _killed(POOL + "time.sleep(1.0)\nreport(2)\ntime.sleep(60)\n", tmp_path)


@pytest.mark.slow
def test_processes_that_read_images_end_with_their_parent(tmp_path: Path) -> None:
    _killed(
        IMAGES + "threading.Thread(target=lambda: (report(2), time.sleep(60)),"
        " daemon=True).start()\nreader()\n",
        tmp_path,
    )


def test_images_are_read_here_where_processes_cannot_wait_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /dev/shm there are no semaphores."""
    import multiprocessing

    import torch
    from PIL import Image

    def fail(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    for name in "ab":
        Image.new("RGB", (20, 20), (name == "a" and "red") or "blue").save(tmp_path / f"{name}.png")
    items = [(str(tmp_path / "a.png"), 0), (str(tmp_path / "b.png"), 1)]
    monkeypatch.setattr(multiprocessing, "Semaphore", fail)
    monkeypatch.setattr("multiprocessing.context.BaseContext.Queue", fail)
    images = ImageFolder(items, preparation=Preparation(size=8), workers=2)
    (batch,) = images.plain(torch.tensor([0, 1]))
    assert batch[1].tolist() == [0, 1]
