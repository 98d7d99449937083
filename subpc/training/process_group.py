"""One process of a team that torchrun started, or a process alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from subpc.errors import ConfigError
from subpc.worker import end_with_parent

if TYPE_CHECKING:
    from subpc.algorithms.subp.team import Team


def leads() -> bool:
    """Whether this process is the one of its team, or the only one, that talks to the user."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def process_group(device: str) -> "Iterator[tuple[Team, str]]":
    """This process's team and device while the body runs: nccl between GPUs, gloo between CPUs.

    device: "auto" is the GPU of this process's local rank where there is one, else the CPU. Raises
    ConfigError for another device.
    """
    import torch
    import torch.distributed as dist

    from subpc.algorithms.subp.team import Team

    chosen = _device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield Team.current(), chosen
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())
    on_gpu = chosen.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Team.current(), chosen
    finally:
        dist.destroy_process_group()


def _device(name: str) -> str:
    import torch

    if name == "cpu":
        return name
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % found}" if found else "cpu"
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise ConfigError(f"device is {name!r}; auto, cpu, cuda and cuda:0 are accepted.")
    if int(index or "0") >= found:
        raise ConfigError(
            f"device is {name!r}, and this PyTorch finds {found} GPUs; pass --device cpu."
        )
    return name
