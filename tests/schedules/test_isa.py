"""Vector units by what LLVM says that a CPU has."""

import pytest

from subpc.schedules.isa import (
    AVX2,
    AVX2_VNNI,
    AVX512,
    AVX512_VNNI,
    AVX512F,
    GENERIC,
    VectorIsa,
    level_of,
)


@pytest.mark.parametrize(
    ("features", "level"),
    [
        ("avx512f avx512bw avx2 fma avx512vnni", AVX512_VNNI),
        ("avx512f avx512bw avx2 fma", AVX512),
        ("avx512f avx2 fma", AVX512F),
        ("avx2 fma avxvnni", AVX2_VNNI),
        ("avx2 fma", AVX2),
        ("avx2", GENERIC),
        ("fma avx", GENERIC),
        ("", GENERIC),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_best_level_that_is_there_in_full(features: str, level: VectorIsa) -> None:
    assert level_of(frozenset(features.split())) is level


def test_sums_that_hide_the_latency() -> None:
    """Two multiply-adds a cycle, each of which takes four."""
    assert AVX512.sums == 8
