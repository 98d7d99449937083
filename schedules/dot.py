"""The instruction that multiplies bytes and adds four products."""

from typing import Any

from tvm import tirx

from subpc.schedules.quantization import CODES

# Bytes whose products are added to one 32-bit lane.
QUAD = 4


def dot(total: Any, pixels: Any, weights: Any, lanes: int) -> Any:
    """total + four products of unsigned and signed bytes in each int32 lane (vpdpbusd).

    total: int32, `lanes` of them. pixels: QUAD * lanes bytes. weights: as many, as int32 words.
    """
    name = "llvm.x86.avx512.vpdpbusd." + ("512" if lanes == 16 else "256")
    codes = tirx.reinterpret(f"{CODES}x{QUAD * lanes}", weights)
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", name, total, pixels, codes)


def pair_products(a: Any, b: Any, lanes: int) -> Any:
    """Products of int16, those of two neighbours added in each int32 lane (vpmaddwd)."""
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", name, a, b)
