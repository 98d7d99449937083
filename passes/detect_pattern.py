"""Find 1xN block patterns in the weights themselves: nobody has to declare them (SUBP, section 3;
1xN pruning)."""

from dataclasses import dataclass

import numpy as np

# Candidates in order of preference: at equal sparsity a larger group needs fewer indices and reuses
# each load more often.
GROUP_SIZES = (32, 16, 8, 4)
# A larger group is preferred while it still finds this share of the zero kernels that a smaller one
# finds.
SAME_SPARSITY = 0.98
# Groups may differ by this share of C_in and still be padded to a uniform count: padding costs less
# than unequal tasks.
UNIFORM_SLACK = 0.02


@dataclass(frozen=True, kw_only=True)
class BlockPattern:
    """A 1xN pattern: kept[g, i] tells whether group g of `n` filters reads input channel i; shape
    (groups, c_in).

    uniform: every group keeps the same number of input channels (up to UNIFORM_SLACK, padded with
    zero blocks).
    """

    n: int
    kept: np.ndarray
    uniform: bool

    @property
    def sparsity(self) -> float:
        """Share of blocks that are left out."""
        return 1.0 - float(self.kept.mean())

    @property
    def label(self) -> str:
        """As reports name it: `1x16 uniform`."""
        return f"1x{self.n} {'uniform' if self.uniform else 'layer-wise'}"


def detect_pattern(weight: np.ndarray) -> BlockPattern | None:
    """The best 1xN pattern in weight (c_out, c_in, kh, kw); None if no N in GROUP_SIZES finds a
    zero block."""
    zero_kernels = ~weight.reshape(*weight.shape[:2], -1).any(axis=2)  # (c_out, c_in)
    found: list[tuple[float, int, np.ndarray]] = []
    for n in GROUP_SIZES:
        if weight.shape[0] % n == 0:
            zero = zero_kernels.reshape(-1, n, weight.shape[1]).all(axis=1)  # (groups, c_in)
            found.append((float(zero.mean()), n, np.logical_not(zero)))
    best = max((share for share, _, _ in found), default=0.0)
    if best == 0.0:
        return None
    _, n, kept = next(entry for entry in found if entry[0] >= SAME_SPARSITY * best)
    return _pattern(n, kept)


def _pattern(n: int, kept: np.ndarray) -> BlockPattern:
    counts = kept.sum(axis=1)
    most = int(counts.max())
    uniform = bool(most - counts.min() <= UNIFORM_SLACK * kept.shape[1])
    if uniform and (counts != most).any():
        kept = kept.copy()
        for row, count in zip(kept, counts, strict=True):
            row[np.flatnonzero(~row)[: most - int(count)]] = True
    return BlockPattern(n=n, kept=kept, uniform=uniform)
