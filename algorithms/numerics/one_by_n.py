"""The 1xN pattern (SUBP, section 3): a block is all taps of one input channel in N consecutive
filters, kept or gone as a whole.

A block mask is (groups, in): one row for N filters, one column for an input channel.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Filters of a block, N. Configurations read it, which are light; hence no PyTorch at the top of
# this file.
BLOCKS = (4, 8, 16, 32)


def blocks(weight: "torch.Tensor", n: int) -> "torch.Tensor":
    """A weight (out, in, kh, kw) as (out / n, in, n * kh * kw): one row a block."""
    groups, channels = weight.shape[0] // n, weight.shape[1]
    rows: torch.Tensor = (
        weight.reshape(groups, n, channels, -1).transpose(1, 2).reshape(groups, channels, -1)
    )
    return rows


def magnitudes(weight: "torch.Tensor", n: int) -> "torch.Tensor":
    """(groups, in): the L1 norm of each block of a weight (out, in, kh, kw)."""
    return weight.abs().reshape(weight.shape[0] // n, n, weight.shape[1], -1).sum((1, 3))


def pruned_count(sparsity: float, channels: int) -> int:
    """Blocks that each group loses: the share `sparsity` of its input channels, rounded down."""
    return int(sparsity * channels)


def lowest_blocks(scores: "torch.Tensor", count: int) -> "torch.Tensor":
    """(rows, count) int64: where the `count` lowest scores of each row of (rows, columns) are, the
    first of equal ones."""
    return scores.argsort(dim=1, stable=True)[:, :count]


def block_mask(scores: "torch.Tensor", count: int, *, layerwise: bool = False) -> "torch.Tensor":
    """(groups, in) bool: in each group the `count` blocks of the lowest score are False.

    layerwise: as many in all, groups * count, wherever in the layer their scores are lowest.
    """
    import torch

    rows = scores.reshape(1, -1) if layerwise else scores
    gone = lowest_blocks(rows, count * (len(scores) if layerwise else 1))
    return torch.ones_like(rows, dtype=torch.bool).scatter_(1, gone, False).view_as(scores)


def kept_blocks(weight: "torch.Tensor") -> "tuple[torch.Tensor, int] | None":
    """The block mask (out / n, in) of a weight (out, in, ...) some of whose blocks are zero, and n:
    the largest of BLOCKS, or all filters, whose blocks are all there is to the zeros.

    None where no block is zero, or none of these n describes which channels each filter reads.
    """
    reads = (weight.flatten(2) if weight.dim() > 2 else weight[..., None]).any(2)
    if bool(reads.all()):
        return None
    for n in (len(reads), *reversed(BLOCKS)):
        if len(reads) % n:
            continue
        groups = reads.view(-1, n, reads.shape[1])
        if bool((groups == groups[:, :1]).all()):
            return groups[:, 0], n
    return None


def expand(mask: "torch.Tensor", n: int) -> "torch.Tensor":
    """A block mask (groups, in) as (out, in, 1, 1), to be multiplied with a weight."""
    return mask.repeat_interleave(n, 0)[:, :, None, None]
