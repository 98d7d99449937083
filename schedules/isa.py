"""What a kernel has to know about the vector unit that it is generated for, and what its parts
cost."""

from dataclasses import dataclass, replace

# Types of one byte, and how many of them there are in the place of a float32.
BYTES = ("uint8", "int8")
BYTES_A_FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class VectorIsa:
    """Vector registers of one x86 level, in units of float32, and measured costs of the cores that
    have them.

    lanes: floats in one register; registers: how many of them can be named; features: what LLVM
    calls the extensions that kernels of this level are written for.
    ports: vectors that a core loads, and multiplies, in one cycle; fma_latency: cycles until the
    sum of a multiply-add can be added to again; loop_cycles: of an inner loop's index, address and
    jump;
    spill_cost: share of its time that a tile loses for each register that it needs and does not
    get;
    streamed_floats: what comes from beyond the second cache in a cycle; cached_floats: what that
    cache may hold of one operand; shared_bytes: what the cores' caches keep of one intermediate
    result. flops_per_byte: what a dense kernel computes while a byte is copied, at 500 Gflop/s and
    50 GB/s. fma_ns, flops_per_ns: of one vector, and useful ones of one core; rough, for sizing
    tasks only.
    """

    name: str
    lanes: int
    registers: int
    features: frozenset[str] = frozenset()
    ports: int = 2
    fma_latency: int = 4
    loop_cycles: float = 0.75
    spill_cost: float = 0.01
    streamed_floats: float = 2.0
    cached_floats: int = 256 * 1024
    shared_bytes: int = 2 << 20
    flops_per_byte: float = 10.0
    fma_ns: float = 0.2
    flops_per_ns: float = 200.0
    dot: str = ""

    def lanes_of(self, dtype: str) -> int:
        """Elements of a type that a register is used for: bytes, or as many others as floats."""
        return self.lanes * (BYTES_A_FLOAT if dtype in BYTES else 1)

    @property
    def integer_path(self) -> str:
        """How it multiplies bytes, for reports; "" where it has no instructions for that."""
        if not self.dot:
            return ""
        ways = {
            "vnni": "vpdpbusd (VNNI: up to 4 times the multiply-adds of float32)",
            "madd": "vpmaddubsw (no VNNI: up to 2 to 3.5 times the multiply-adds of float32)",
        }
        return f"{ways[self.dot]} on {32 * self.lanes}-bit vectors"

    @property
    def sums(self) -> int:
        """Independent sums that keep every port busy while each of them waits for its last
        multiply-add."""
        return self.ports * self.fma_latency


AVX512F = VectorIsa(name="avx512f", lanes=16, registers=32, features=frozenset({"avx512f"}))
AVX512 = replace(AVX512F, name="avx512", features=frozenset({"avx512f", "avx512bw"}), dot="madd")
AVX512_VNNI = replace(
    AVX512, name="avx512_vnni", features=AVX512.features | {"avx512vnni"}, dot="vnni"
)
AVX2 = VectorIsa(
    name="avx2", lanes=8, registers=16, features=frozenset({"avx2", "fma"}), dot="madd"
)
AVX2_VNNI = replace(AVX2, name="avx2_vnni", features=AVX2.features | {"avxvnni"}, dot="vnni")
# Without a known vector unit LLVM splits 4-lane operations as it likes; correct everywhere, fast
# nowhere.
GENERIC = VectorIsa(name="generic", lanes=4, registers=16)
# The best first.
LEVELS = (AVX512_VNNI, AVX512, AVX512F, AVX2_VNNI, AVX2, GENERIC)


def level_of(features: frozenset[str]) -> VectorIsa:
    """The best level whose extensions, as LLVM names them, are all there."""
    return next(level for level in LEVELS if level.features <= features)
