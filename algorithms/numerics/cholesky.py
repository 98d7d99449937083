"""Cholesky factors of covariances that are positive semidefinite only up to rounding."""

from collections.abc import Callable

import torch

_FIRST, _FACTOR = 1e-6, 10.0


def steady_cholesky(
    matrix: torch.Tensor, *, upper: bool = False, again: Callable[[], torch.Tensor] | None = None
) -> torch.Tensor:
    """The factor of symmetric matrices (..., d, d), with as much of their mean diagonal added as it
    takes, in steps of ten.

    again: gives the matrix anew; with it the factor is put into the memory of `matrix`, which has
    to be in Fortran's order. Matrices that are not finite give a factor that is not.
    """
    share, place = (
        _FIRST,
        None if again is None else (matrix, torch.zeros(matrix.shape[:-2], dtype=torch.int32)),
    )
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix, upper=upper, out=place)
    while bool(failed.any()) and share < 1 / _FIRST:
        steadied = matrix.clone() if again is None else again()
        diagonal = steadied.diagonal(dim1=-2, dim2=-1)
        diagonal.add_(share * diagonal.abs().mean(-1, keepdim=True))
        factor, failed = torch.linalg.cholesky_ex(steadied, upper=upper)
        share *= _FACTOR
    return factor


def solve_in_place(factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """x of L L^T x = right (..., d, k) for lower factors L, in the memory of `right`, which has to
    be in Fortran's order.

    What torch.cholesky_solve gives, without its copies of both.
    """
    half = torch.linalg.solve_triangular(factor, right, upper=False, out=right)
    solved: torch.Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True, out=right)
    return solved
