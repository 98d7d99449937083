"""Target strings: what is accepted, what it means, what is refused."""

import pytest

from subpc.errors import TargetError
from subpc.machine import target as target_module
from subpc.machine.cpu import missing_features
from subpc.machine.target import parse_target
from subpc.schedules.isa import AVX2, AVX512, AVX512_VNNI, GENERIC, VectorIsa


@pytest.mark.parametrize(
    ("text", "isa"),
    [
        ("llvm -mcpu=skylake-avx512 -num-cores=4", AVX512),
        ("llvm -mcpu=znver4", AVX512_VNNI),
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
    assert {
        "pni",
        "sse4_2",
        "avx2",
        "fma",
        "bmi2",
        "abm",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512cd",
    } <= set(skylake)
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
    monkeypatch.setattr(
        target_module, "_host_features", lambda: {"avx512f": False, "fma": True, "avx2": True}
    )
    monkeypatch.setattr(
        target_module, "_CPUINFO_NAMES", {"avx512f": "avx512f", "avx2": "avx2", "fma": "fma"}
    )
    monkeypatch.setattr(
        target_module,
        "_llvm",
        lambda name, *a: "skylake-avx512" if "CPUName" in name else _REAL(name, *a),
    )
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


@pytest.mark.parametrize("cores", ["1", "8192"])
def test_numbers_of_cores(cores: str) -> None:
    assert parse_target(f"llvm -num-cores={cores}").num_cores == int(cores)


@pytest.mark.parametrize(
    "cores",
    [
        "0",
        "-1",
        "+4",
        "1e3",
        "4.0",
        "8193",
        "12345678901234567890123",
        "9" * 3000,
        "\u0663",
        "1_0",
        " 1",
    ],
)
def test_what_is_no_number_of_cores(cores: str) -> None:
    with pytest.raises(TargetError, match="is not a number of 1 or more, up to 8192"):
        parse_target(f"llvm '-num-cores={cores}'")


@pytest.mark.parametrize("cpu", ["i386", "pentium4", "yonah", "athlon-xp"])
def test_a_cpu_of_32_bits_is_refused(cpu: str) -> None:
    """LLVM would end the process."""
    with pytest.raises(TargetError, match=f"CPU '{cpu}'.* has 32 bits"):
        parse_target(f"llvm -mcpu={cpu} -mattr=+avx2")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ("-64bit", "every x86-64 CPU has 64bit"),
        ("+avx2,-sse2", "every x86-64 CPU has sse2"),
        ("+avx2,-avx2", "'avx2' twice"),
        ("+egpr", "cannot tell whether a CPU has it"),
        (",", "needs a \\+ or -"),
        ("+", "unknown CPU feature"),
        ("+avx2,", "needs a \\+ or -"),
        ("help", "needs a \\+ or -"),
    ],
)
def test_features_that_make_no_sense(attributes: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        parse_target(f"llvm -mattr={attributes}")


@pytest.mark.parametrize("text", [None, 3, b"llvm", "llvm " + "x" * 5000])
def test_what_is_no_text_of_a_target(text: object) -> None:
    with pytest.raises(TargetError, match=r"the target is a .*; accepted: llvm") as caught:
        parse_target(text)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


def test_a_feature_that_is_hidden_here_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        target_module, "_native", lambda: ("skylake-avx512", ("-avx512bw", "-avx512f"))
    )
    parsed = parse_target("llvm -mcpu=native -mattr=+avx512f")
    assert parsed.mattr == ("-avx512bw", "+avx512f")
    assert parse_target(str(parsed)) == parsed
