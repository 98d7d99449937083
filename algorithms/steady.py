"""Cholesky factors of covariances that are positive semidefinite only up to rounding."""

import torch

_FIRST, _FACTOR = 1e-6, 10.0


def steady_cholesky(matrix: torch.Tensor, *, upper: bool = False) -> torch.Tensor:
    """The factor of symmetric matrices (..., d, d), with as much of their mean diagonal added as it takes, in steps of ten.

    Matrices that are not finite give a factor that is not.
    """
    share = _FIRST
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix, upper=upper)
    while bool(failed.any()) and share < 1 / _FIRST:
        mean = matrix.diagonal(dim1=-2, dim2=-1).abs().mean(-1, keepdim=True)
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed((share * mean).expand(matrix.shape[:-1])), upper=upper)
        share *= _FACTOR
    return factor
