"""Quantized weights as entries of a compressed model file: packed codes at their true width,
scales, shapes."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from subpc.algorithms.config import MAX_BITS, MIN_BITS
from subpc.algorithms.numerics.quantizers import Quantized, pack_codes, unpack_codes
from subpc.errors import ModelFileError

_KEYS = {"codes", "scale", "bits", "has_zero", "shape"}
# Files of the first format: zero was a level of 2 bits only.
_FIRST_KEYS = {"codes", "scale", "bits", "ternary", "shape"}
_MAX_WEIGHTS = 1 << 30


def packed_entries(layers: Mapping[str, Quantized]) -> dict[str, dict[str, Any]]:
    """Plain tensors and numbers for each layer."""
    return {
        name: {
            "codes": pack_codes(layer.codes, layer.bits),
            "scale": layer.scale.detach().clone(),
            "bits": layer.bits,
            "has_zero": layer.has_zero,
            "shape": list(layer.codes.shape),
        }
        for name, layer in layers.items()
    }


def parse_packed(content: Any, file: str) -> dict[str, Quantized]:
    """The inverse of packed_entries for content of an untrusted file; ModelFileError that names the
    layer."""
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ModelFileError(
            f"{file}: the entry 'packed' has to map layer names to packed weights."
        )
    return {
        name: _parse(entry, f"{file}: the packed layer {name!r:.60}")
        for name, entry in content.items()
    }


def _parse(entry: Any, where: str) -> Quantized:
    if isinstance(entry, dict) and set(entry) == _FIRST_KEYS:
        entry = {key.replace("ternary", "has_zero"): value for key, value in entry.items()}
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise ModelFileError(f"{where} has to have exactly the keys {', '.join(sorted(_KEYS))}.")
    bits, shape, codes, scale = entry["bits"], entry["shape"], entry["codes"], entry["scale"]
    if (
        type(bits) is not int
        or not MIN_BITS <= bits <= MAX_BITS
        or type(entry["has_zero"]) is not bool
    ):
        raise ModelFileError(
            f"{where} has {bits!r:.20} bits; whole numbers from {MIN_BITS} to {MAX_BITS} are"
            " accepted."
        )
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 4
        or not all(type(size) is int and size > 0 for size in shape)
    ):
        raise ModelFileError(
            f"{where} has the shape {shape!r:.60}; one to four positive sizes are accepted."
        )
    count = math.prod(shape)
    if (
        not _is(codes, torch.uint8)
        or count > _MAX_WEIGHTS
        or codes.numel() != (count * bits + 7) // 8
    ):
        raise ModelFileError(f"{where} does not hold {count} codes of {bits} bits.")
    if (
        not _is(scale, torch.float32)
        or scale.numel() not in (1, shape[0])
        or not bool(scale.isfinite().all())
    ):
        raise ModelFileError(f"{where} needs one finite scale a layer or an output channel.")
    layer = Quantized(
        codes=unpack_codes(codes, bits, count).view(shape),
        scale=scale,
        bits=bits,
        has_zero=entry["has_zero"],
    )
    if int(layer.codes.max()) > layer.most:
        raise ModelFileError(
            f"{where} has the code {int(layer.codes.max())}; {layer.most} is the largest of its"
            f" {bits} bits."
        )
    return layer


def _is(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == dtype and value.dim() == 1
