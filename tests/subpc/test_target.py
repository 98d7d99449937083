"""Target strings: what is accepted, what it means, what is refused."""

import pytest

from subpc import target as target_module
from subpc.cpu import missing_features
from subpc.errors import TargetError
from subpc.schedules.isa import AVX2, AVX512, GENERIC, VectorIsa
from subpc.target import parse_target


@pytest.mark.parametrize(
    ("text", "isa"),
    [
        ("llvm -mcpu=skylake-avx512 -num-cores=4", AVX512),
        ("llvm -mcpu=znver4", AVX512),
        ("llvm -mcpu=haswell", AVX2),
        ("llvm -mcpu=znver2", AVX2),
        ("llvm -mcpu=skylake-avx512 -mattr=-avx512f", AVX2),
        ("llvm -mattr=+avx2,+fma", AVX2),
        ("llvm -mcpu=nehalem", GENERIC),
        ("llvm", GENERIC),
    ],
)
def test_lane_width_follows_the_cpu(text: str, isa: VectorIsa) -> None:
    parsed = parse_target(text)
    assert parsed.isa is isa
    assert str(parsed) == text
    assert parse_target(str(parsed)) == parsed
    assert str(parsed.tvm_target().kind) == "llvm"


def test_required_features_are_what_the_code_may_use() -> None:
    skylake = parse_target("llvm -mcpu=skylake-avx512").features
    assert {"pni", "sse4_2", "avx2", "fma", "bmi2", "abm", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"} <= set(skylake)
    assert not {"avx512_vnni", "avx512_bf16", "aes", "xsave"} & set(skylake)
    assert "avx512_vnni" in parse_target("llvm -mcpu=cascadelake").features
    assert "avx512_bf16" in parse_target("llvm -mcpu=cooperlake").features
    assert "avx512_vnni" in parse_target("llvm -mcpu=skylake-avx512 -mattr=+avx512vnni").features
    assert "avx512_bf16" not in parse_target("llvm -mcpu=cooperlake -mattr=-avx512bf16").features
    assert parse_target("llvm").features == ()


def test_native_runs_here() -> None:
    native = parse_target("llvm -mcpu=native -num-cores=2")
    assert native.mcpu != "native"
    assert native.num_cores == 2
    assert missing_features(native.features) == ()


def test_native_leaves_out_what_a_hypervisor_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "_host_features", lambda: {"avx512f": False, "fma": True, "avx2": True})
    monkeypatch.setattr(target_module, "_CPUINFO_NAMES", {"avx512f": "avx512f", "avx2": "avx2", "fma": "fma"})
    monkeypatch.setattr(target_module, "_llvm", lambda name, *a: "skylake-avx512" if "CPUName" in name else _REAL(name, *a))
    parsed = parse_target("llvm -mcpu=native")
    assert parsed.mattr == ("-avx512f",)
    assert parsed.isa is AVX2


_REAL = target_module._llvm


def test_512_bit_vectors_stay_whole() -> None:
    assert "-prefer-256-bit" in str(parse_target("llvm -mcpu=skylake-avx512").tvm_target())
    assert "prefer-256-bit" not in str(parse_target("llvm -mcpu=haswell").tvm_target())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuda", "not for a CPU"),
        ("", "not for a CPU"),
        ("skylake-avx512", "not for a CPU"),
        ("llvm -mcpu=skylake-avx51", "did you mean skylake-avx512"),
        ("llvm -mcpu=foo42", "unknown CPU 'foo42'"),
        ("llvm -cpu=haswell", "did you mean mcpu"),
        ("llvm -libs=mkl", "unknown option '-libs=mkl'"),
        ("llvm haswell", "unknown option 'haswell'"),
        ("llvm -mcpu", "needs one value"),
        ("llvm -mcpu= ", "needs one value"),
        ("llvm -mcpu=haswell -mcpu=znver2", "needs one value"),
        ("llvm -num-cores=0", "not a number of 1 or more"),
        ("llvm -num-cores=many", "not a number of 1 or more"),
        ("llvm -mattr=avx2", "needs a \\+ or -"),
        ("llvm -mattr=+avx512vnnni", "did you mean avx512vnni"),
        ("llvm -mcpu='haswell", "cannot read target"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_target(text)
