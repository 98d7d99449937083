"""What the kernel says about this CPU: its name and its instruction-set flags."""

import functools
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


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
    """Instruction-set flags as the kernel names them (`avx512f`, `avx512_vnni`); what a hypervisor hides is not listed."""
    return frozenset(_field(CPUINFO, "flags", "Features").split())


def missing_features(required: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the required flags this CPU lacks, in the given order."""
    have = cpu_features()
    return tuple(name for name in required if name not in have)
