"""Weight quantizers (ternary, uniform k-bit) and their codes packed to the true width."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from subpc.algorithms.config import check_bits
from subpc.algorithms.numerics.cholesky import steady_cholesky

# TWN, equation 6: the threshold as a share of the mean magnitude.
TERNARY_SHARE = 0.7
# Scales that are tried, as shares of the largest magnitude; values that are rounded before the rest
# is brought up to date.
_SMALLEST_SHARE, _SHARES, _BLOCK = 0.2, 41, 64
# Values of a piece that is worked on at a time; of any width they fill whole bytes.
_PIECE = 1 << 17


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """Integer codes (uint8, the weight's shape), their width, and one scale a layer (1,) or an
    output channel (c,).

    The codes stand for levels from -scale to scale. has_zero: an odd number of them, 2^bits - 1,
    of which the middle one is zero (ternary codes with 2 bits); else 2^bits, none of which is.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bits: int
    has_zero: bool = False

    def dequantize(self) -> torch.Tensor:
        """The float32 weight: scale * (2 code / most - 1), most being the largest code."""
        pieces = _pieces(self.codes.flatten(1), self.scale.double()[:, None])
        return torch.cat([self._values(codes.double(), scale) for codes, scale in pieces]).view(
            self.codes.shape
        )

    def _values(self, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return codes.mul_(2).div_(self.most).sub_(1).mul_(scale).float()

    @property
    def most(self) -> int:
        """The largest code."""
        return largest_code(self.bits, has_zero=self.has_zero)

    def keep(self, kept: torch.Tensor) -> "Quantized":
        """The filters that kept (c,) bool marks."""
        return replace(
            self,
            codes=self.codes[kept],
            scale=self.scale[kept] if len(self.scale) == len(kept) else self.scale,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of packed codes and scales."""
        return (self.codes.numel() * self.bits + 7) // 8 + 4 * self.scale.numel()


def largest_code(bits: int, *, has_zero: bool) -> int:
    """Of codes with so many bits, counted from 0; even where the middle one stands for zero."""
    return (1 << bits) - (2 if has_zero else 1)


def quantize_ternary(weight: torch.Tensor, *, per_channel: bool = False) -> Quantized:
    """Ternary weight networks: zero below 0.7 mean |w|, else sign(w) times the mean magnitude of
    what is kept."""
    weight = weight.detach()
    size = weight.abs().double().flatten(1) if per_channel else weight.abs().double().reshape(1, -1)
    kept = size > TERNARY_SHARE * size.mean(1, keepdim=True)
    scale = size.mul_(kept).sum(1) / kept.sum(1).clamp(min=1)
    del size  # twice the weight's memory
    codes = weight.sign().mul_(kept.view(weight.shape)).add_(1).to(torch.uint8)
    return Quantized(codes=codes, scale=scale.float(), bits=2, has_zero=True)


def quantize_uniform(weight: torch.Tensor, bits: int, *, per_channel: bool = False) -> Quantized:
    """2^bits levels between -max|w| and max|w|, none of them zero (UDFC and DF-MPC; the scale, left
    out there, is restored)."""
    check_bits(bits)
    rows = weight.detach().flatten(1)
    scale = torch.linalg.vector_norm(
        rows if per_channel else rows.reshape(1, -1), torch.inf, 1
    ).double()
    pieces = _pieces(rows, 2 * scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None])
    units = ((part / width).add_(0.5) for part, width in pieces)
    codes = torch.cat([unit.mul_(2**bits - 1).round_().to(torch.uint8) for unit in units]).view(
        weight.shape
    )
    return Quantized(codes=codes, scale=scale.float(), bits=bits)


def search_scale(
    rows: torch.Tensor, importance: torch.Tensor, bits: int, *, has_zero: bool, per_channel: bool
) -> torch.Tensor:
    """The scale, one a row (out, 1) or of all (1, 1), whose rounding of rows (out, d) errs least;
    importance (out, d) weights squares.

    Found among steps between a share of the largest magnitude and it. In float32, for this only
    picks, and piece by piece, so that what is tried 41 times stays in the cache.
    """
    top = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True)
    top = top if per_channel else top.amax().expand(len(rows), 1)
    errors = torch.cat(
        [_errors(*parts, bits=bits, has_zero=has_zero) for parts in _pieces(rows, importance, top)],
        1,
    )
    best = _steps()[(errors if per_channel else errors.double().sum(1, keepdim=True)).argmin(0)]
    scale: torch.Tensor = top[: len(best)] * best[:, None].to(top.dtype)
    return scale.clamp(min=torch.finfo(torch.float32).tiny)


def _pieces(rows: torch.Tensor, *others: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """A few of the rows (out, d) at a time, with their share of the others, which have as many rows
    or one for all."""
    parts: Iterator[tuple[torch.Tensor, ...]] = (
        torch.split(x.expand(len(rows), -1), max(1, _PIECE // rows.shape[1]))
        for x in (rows, *others)
    )
    return zip(*parts, strict=True)


def _steps() -> torch.Tensor:
    return torch.linspace(_SMALLEST_SHARE, 1, _SHARES)


def _errors(
    rows: torch.Tensor, importance: torch.Tensor, top: torch.Tensor, *, bits: int, has_zero: bool
) -> torch.Tensor:
    """(steps, rows): what rounding with each step's share of `top` as scale costs each row."""
    rows, importance, top = rows.float(), importance.float(), top.float()
    tried = (
        (rounding(top * share, bits, has_zero=has_zero)(rows) - rows).square_()
        for share in _steps()
    )
    return torch.stack([torch.linalg.vecdot(importance, squares) for squares in tried])


def codes_of(rows: torch.Tensor, scale: torch.Tensor, bits: int, *, has_zero: bool) -> torch.Tensor:
    """The nearest codes (uint8, the shape of `rows`) for scale (out, 1) or (1, 1)."""
    most = largest_code(bits, has_zero=has_zero)

    def nearest(part: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        codes = (part * (most / 2 / own)).add_(most / 2).round_().clamp_(0, most)
        return codes.to(torch.uint8)

    return torch.cat([nearest(*parts) for parts in _pieces(rows, scale)])


def rounding(
    scale: torch.Tensor, bits: int, *, has_zero: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function from values (out, ...) to those that the nearest codes stand for; scale as in
    codes_of."""
    most = largest_code(bits, has_zero=has_zero)
    up, down = most / 2 / scale, 2 * scale / most
    return lambda rows: (rows * up).add_(most / 2).round_().clamp_(0, most).mul_(down).sub_(scale)


def quantize_with_feedback(
    rows: torch.Tensor, curvature: torch.Tensor, scale: torch.Tensor, bits: int, *, has_zero: bool
) -> torch.Tensor:
    """Rows (out, d) rounded value by value, each error made good by the values that are left (GPTQ,
    arXiv 2210.17323, equations 2, 3).

    curvature (d, d): as in Problem. Values of the largest curvature go first.
    """
    order = curvature.diagonal().argsort(descending=True)
    factor = _inverse_factor(curvature, order)
    left = rows.T[order]  # values of a place side by side: (d, out)
    nearest = rounding(scale[:, 0], bits, has_zero=has_zero)
    for start in range(0, len(left), _BLOCK):
        block = slice(start, start + _BLOCK)
        part, inside = left[block], factor[block, block]
        errors = torch.empty_like(part)
        for i, pivot in enumerate(inside.diagonal().tolist()):
            value = nearest(part[i])
            torch.sub(part[i], value, out=errors[i]).div_(pivot)
            part[i] = value
            part[i + 1 :].addr_(inside[i, i + 1 :], errors[i], alpha=-1)
        left[start + _BLOCK :].addmm_(factor[block, start + _BLOCK :].T, errors, alpha=-1)
    return left[order.argsort()].T


def _inverse_factor(curvature: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The upper factor U of the inverse U^T U of curvature (d, d), its values in `order`, in one
    matrix's memory from step to step."""

    def sorted_curvature() -> torch.Tensor:
        return curvature.mT[order[:, None], order].mT

    def inverse() -> torch.Tensor:
        lower = steady_cholesky(sorted_curvature(), again=sorted_curvature)
        return torch.cholesky_inverse(lower, out=lower)

    return steady_cholesky(inverse(), upper=True, again=inverse)


def pack_codes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes below 2^bits as one stream of bits, lowest first, in ceil(n bits / 8) bytes (uint8)."""
    return torch.cat([_packed(piece, bits) for piece in torch.split(codes.reshape(-1), _PIECE)])


def _packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    stream = np.unpackbits(codes.numpy()[:, None], axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def unpack_codes(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The first `count` codes of a packed stream (uint8, one dimension)."""
    pieces = torch.split(packed, _PIECE * bits // 8)
    return torch.cat(
        [_unpacked(piece, bits, min(_PIECE, count - i * _PIECE)) for i, piece in enumerate(pieces)]
    )


def _unpacked(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    stream = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(
        count, bits
    )
    return torch.from_numpy(np.packbits(stream, axis=1, bitorder="little")[:, 0])
