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
