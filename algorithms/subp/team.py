"""The processes of one training: torch.distributed where it is initialised, else one process
alone."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process is `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Team":
        """The initialised process group, or a team of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, indices: torch.Tensor) -> torch.Tensor:
        """Of indices (n,) every size-th one, from rank on: the shares of all processes are all of
        them."""
        return indices[self.rank :: self.size]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model to call in training: gradients are averaged over the team."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """`values`, of any shape, added over the team, in every process."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Return once every process has called this."""
        if self.size > 1:
            dist.barrier()
