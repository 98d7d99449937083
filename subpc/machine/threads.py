"""How many threads this process may use: its affinity mask and its control group's CPU quota."""

import os
from pathlib import Path

from subpc.errors import ConfigError


def available_threads(root: Path = Path("/")) -> int:
    """CPUs this process may use; half a CPU of quota counts as none, because a throttled thread
    stalls all the others."""
    cpus = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def native_threads() -> set[int]:
    """Ids of this process's threads, as the kernel counts them; none where /proc is not there."""
    try:
        return {int(name) for name in os.listdir("/proc/self/task")}
    except FileNotFoundError:
        return set()


def resolve_threads(threads: int | None) -> int:
    """The thread count to use: what was asked for if it can be had, all available CPUs if nothing
    was asked."""
    limit = available_threads()
    if threads is None:
        return limit
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= limit:
        raise ConfigError(
            f"threads is {threads!r}; this process may use 1 to {limit} (affinity mask and CPU"
            " quota)"
        )
    return threads


def _quota(root: Path) -> float | None:
    """The smallest CPU quota on the way from this process's control group to the root, in CPUs."""
    quotas = [
        quota for folder in _cgroup_folders(root) if (quota := _folder_quota(folder)) is not None
    ]
    return min(quotas, default=None)


def _cgroup_folders(root: Path) -> list[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"]:
            relative = Path(path.lstrip("/"))
            # In a container the path is the host's, and the mount shows only the own group: the
            # mount itself is asked as well.
            folders += [mount / part for part in [relative, *relative.parents]]
    return folders


def _folder_quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / "cpu.cfs_quota_us").read_text(),
                (folder / "cpu.cfs_period_us").read_text(),
            )
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
