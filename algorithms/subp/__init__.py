"""SUBP (Xiang et al., NeurIPS 2023, arXiv 2310.06218): 1xN block sparsity trained from scratch, the
same count in every group."""

from subpc.algorithms.subp.block_masks import Subp
from subpc.algorithms.subp.config import SubpConfig

__all__ = ["Subp", "SubpConfig"]
