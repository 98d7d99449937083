"""Block-sparse weights as entries of a compressed model file: the kept 1xN blocks and where they
are."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from subpc.algorithms.numerics.one_by_n import BLOCKS, blocks
from subpc.errors import ModelFileError

_KEYS = {"n", "shape", "kept", "values"}
_MAX_WEIGHTS = 1 << 30
_TYPES = (torch.float32, torch.float16)


def block_entries(
    state: Mapping[str, torch.Tensor], layers: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """For each layer of {name: N}: its shape, `kept` (blocks) int32, positions in (groups, in), and
    `values` (blocks, N * kh * kw).

    The values keep the type of the weight, float32 or float16.
    """
    return {name: _entry(state[f"{name}.weight"].detach().cpu(), n) for name, n in layers.items()}


def _entry(weight: torch.Tensor, n: int) -> dict[str, Any]:
    rows = blocks(weight, n).flatten(0, 1)
    kept = rows.abs().amax(1).nonzero().flatten()
    return {
        "n": n,
        "shape": list(weight.shape),
        "kept": kept.to(torch.int32),
        "values": rows[kept].contiguous(),
    }


def parse_blocks(content: Any, file: str) -> dict[str, torch.Tensor]:
    """{layer: weight (out, in, kh, kw) float32}, the inverse of block_entries, for an untrusted
    file.

    Raises ModelFileError that names the layer.
    """
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ModelFileError(f"{file}: the entry 'blocks' has to map layer names to blocks.")
    return {
        name: _parse(entry, f"{file}: the sparse layer {name!r:.60}")
        for name, entry in content.items()
    }


def _parse(entry: Any, where: str) -> torch.Tensor:
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise ModelFileError(f"{where} has to have exactly the keys {', '.join(sorted(_KEYS))}.")
    n, shape, kept, values = entry["n"], entry["shape"], entry["kept"], entry["values"]
    if type(n) is not int or n not in BLOCKS:
        raise ModelFileError(f"{where} has blocks of {n!r:.20}; {BLOCKS} are accepted.")
    if (
        not isinstance(shape, list)
        or len(shape) != 4
        or not all(type(size) is int and size > 0 for size in shape)
    ):
        raise ModelFileError(
            f"{where} has the shape {shape!r:.60}; four positive sizes are accepted."
        )
    out, channels, height, width = shape
    if out % n or math.prod(shape) > _MAX_WEIGHTS:
        raise ModelFileError(f"{where} has the shape {shape}, which blocks of {n} do not make up.")
    total, fits = (
        out // n * channels,
        isinstance(kept, torch.Tensor) and kept.dtype == torch.int32 and kept.dim() == 1,
    )
    places = kept.long() if fits else torch.zeros(0, dtype=torch.int64)
    rising = bool((places[1:] > places[:-1]).all()) and (
        len(places) == 0 or 0 <= int(places[0]) <= int(places[-1]) < total
    )
    if not fits or not rising:
        raise ModelFileError(f"{where} needs rising int32 positions below {total}.")
    size = (len(places), n * height * width)
    if (
        not isinstance(values, torch.Tensor)
        or values.dtype not in _TYPES
        or tuple(values.shape) != size
    ):
        raise ModelFileError(f"{where} needs float32 or float16 values of the shape {size}.")
    rows = torch.zeros(total, n * height * width)
    rows[places] = values.float()
    return rows.reshape(out // n, channels, n, height * width).transpose(1, 2).reshape(shape)
