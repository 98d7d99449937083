"""Freed memory with holes in it goes back to the system."""

import platform
from pathlib import Path

import pytest
import torch

from subpc.algorithms.numerics.free_memory import give_back_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such call")
def test_what_is_free_between_tensors_that_stay_goes_back() -> None:
    tensors = [torch.ones(1 << size) for _ in range(4000) for size in (5, 15)]
    before = _resident()
    del tensors[1::2]
    freed = _resident()
    give_back_memory(1 << 40)
    assert _resident() > freed - 50
    give_back_memory()
    assert _resident() < before - 300


def _resident() -> float:
    """MB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
