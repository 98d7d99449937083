"""What the kernel says about this CPU: its name and its instruction-set flags."""

import functools
import math
import os
import time
from pathlib import Path

from subpc.errors import TargetError

CPUINFO = Path("/proc/cpuinfo")
STAT = Path("/proc/stat")


@functools.lru_cache(maxsize=4)
def _field(path: Path, *names: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""


def cpu_name() -> str:
    """The CPU's name, for reports."""
    return _field(CPUINFO, "model name", "Model") or "unknown CPU"


def cpu_features() -> frozenset[str]:
    """Instruction-set flags as the kernel names them (`avx512f`, `avx512_vnni`); what a hypervisor
    hides is not listed.

    Raises:
        TargetError: the kernel does not say, because /proc is not there.
    """
    flags = _field(CPUINFO, "flags", "Features").split()
    if not flags:
        raise TargetError(
            f"which instruction sets this CPU has is not known: {CPUINFO} cannot be read; mount it"
            " with: mount -t proc proc /proc"
        )
    return frozenset(flags)


def idle_cpus(seconds: float = 0.2) -> float:
    """How many CPUs had nothing to do for a moment; infinite where the kernel does not say."""
    try:
        before = _idle_ticks()
        start = time.monotonic()
        time.sleep(seconds)
        after = _idle_ticks()
    except (OSError, ValueError, IndexError):
        return math.inf
    return (after - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)


def _idle_ticks() -> int:
    words = STAT.read_text().split("\n", 1)[0].split()
    return int(words[4]) + int(words[5])  # idle, and waiting for input or output


def missing_features(required: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the required flags this CPU lacks, in the given order; TargetError where that is not
    known."""
    have = cpu_features() if required else frozenset()
    return tuple(name for name in required if name not in have)
