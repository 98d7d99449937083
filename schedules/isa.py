"""What a kernel has to know about the vector unit that it is generated for."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VectorIsa:
    """Vector registers of one x86 level, in units of float32.

    lanes: floats in one register; registers: how many of them can be named; fma: one fused multiply-add instruction.
    """

    lanes: int
    registers: int
    fma: bool


AVX512 = VectorIsa(lanes=16, registers=32, fma=True)
AVX2 = VectorIsa(lanes=8, registers=16, fma=True)
# Without a known vector unit LLVM splits 4-lane operations as it likes; correct everywhere, fast nowhere.
GENERIC = VectorIsa(lanes=4, registers=16, fma=False)
