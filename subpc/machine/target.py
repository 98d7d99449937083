"""Target strings: `llvm -mcpu=skylake-avx512 -num-cores=4` in, what the code generator and the
library need to know out."""

import difflib
import functools
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from subpc.errors import TargetError
from subpc.schedules.isa import VectorIsa, level_of

if TYPE_CHECKING:
    import tvm

OPTIONS = ("mcpu", "mattr", "num-cores")
EXAMPLE = "llvm -mcpu=native, llvm -mcpu=skylake-avx512 -num-cores=4, llvm -mcpu=haswell, llvm"

# LLVM's name -> the kernel's name in /proc/cpuinfo, for every extension that LLVM may use on its
# own for plain loops and vectors. Extensions that only intrinsics reach (aes, sha, amx, xsave, ...)
# are not listed: the code runs without them.
_CPUINFO_NAMES = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "sse4a": "sse4a",
    "popcnt": "popcnt",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "fma4": "fma4",
    "xop": "xop",
    "tbm": "tbm",
    "movbe": "movbe",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "lzcnt": "abm",
    "avx2": "avx2",
    "avxvnni": "avx_vnni",
    "avxifma": "avx_ifma",
    "avxneconvert": "avx_ne_convert",
    "avxvnniint8": "avx_vnni_int8",
    "avxvnniint16": "avx_vnni_int16",
    "gfni": "gfni",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avx10.1": "avx10_1",
    "avx10.2": "avx10_2",
}

# What x86-64 is made of.
_BASELINE = ("64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_LANES_OF_256_BITS = 8
# More CPUs than Linux knows, and longer than every option with every feature.
_MOST_CORES, _LONGEST = 8192, 4000


@dataclass(frozen=True, kw_only=True)
class Target:
    """A CPU to compile for. llvm_features: everything that LLVM takes for granted on it."""

    mcpu: str | None = None
    mattr: tuple[str, ...] = ()
    num_cores: int | None = None
    llvm_features: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def isa(self) -> VectorIsa:
        """The vector unit that kernels are generated for."""
        return level_of(self.llvm_features)

    @property
    def features(self) -> tuple[str, ...]:
        """CPU flags, as /proc/cpuinfo names them, that the generated code may use; a library is
        refused where one is missing."""
        return tuple(flag for name, flag in _CPUINFO_NAMES.items() if name in self.llvm_features)

    def description(self) -> dict[str, Any]:
        """The same as TVM writes targets."""
        # Some Intel CPUs are marked as better off with 256-bit vectors; our kernels choose their
        # width themselves.
        mattr = [
            *self.mattr,
            *(
                ["-prefer-256-bit"]
                if "prefer-256-bit" in self.llvm_features and self.isa.lanes > _LANES_OF_256_BITS
                else []
            ),
        ]
        return _description(self.mcpu, mattr, self.num_cores)

    def tvm_target(self) -> "tvm.target.Target":
        """The same as a TVM target."""
        import tvm

        return tvm.target.Target(self.description())

    def __str__(self) -> str:
        parts = [
            "llvm",
            f"-mcpu={self.mcpu}" if self.mcpu else "",
            f"-mattr={','.join(self.mattr)}" if self.mattr else "",
        ]
        return " ".join(
            [p for p in parts if p] + ([f"-num-cores={self.num_cores}"] if self.num_cores else [])
        )


def isa_of_flags(flags: frozenset[str]) -> VectorIsa:
    """The vector unit of a CPU with these flags, as /proc/cpuinfo names them."""
    return level_of(frozenset(name for name, flag in _CPUINFO_NAMES.items() if flag in flags))


def parse_target(text: str) -> Target:
    """Parse a target string and ask LLVM what it means.

    Args:
        text: `llvm`, with `-mcpu=NAME` (or `native`), `-mattr=+feature,-feature` and `-num-cores=N`
            if wanted.

    Raises:
        TargetError: unknown kind, option, CPU or feature; the message lists close matches.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        seen = (
            f"a {type(text).__name__}"
            if not isinstance(text, str)
            else f"a text of {len(text)} characters"
        )
        raise TargetError(f"the target is {seen}; accepted: {EXAMPLE}")
    options = _options(text)
    mcpu, mattr = (
        options.get("mcpu"),
        tuple(a.strip() for a in options["mattr"].split(",")) if "mattr" in options else (),
    )
    _check_mattr(mattr)
    if mcpu == "native":
        mcpu, hidden = _native()
        mattr = (
            *(name for name in hidden if name[1:] not in {given[1:] for given in mattr}),
            *mattr,
        )
    elif mcpu is not None and mcpu not in _known_cpus():
        raise TargetError(
            f"unknown CPU {mcpu!r} in target {text!r}; {_close(mcpu, _known_cpus())}, or native"
        )
    cores, features = _cores(options.get("num-cores"), text), _llvm_features(mcpu, mattr)
    if "64bit" not in features:
        raise TargetError(
            f"CPU {mcpu!r} in target {text!r} has 32 bits; subpc compiles for x86-64, such as llvm"
            " -mcpu=x86-64"
        )
    return Target(mcpu=mcpu, mattr=mattr, num_cores=cores, llvm_features=features)


def _options(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise TargetError(f"cannot read target {text!r} ({error}); accepted: {EXAMPLE}") from error
    if not words or words[0] != "llvm":
        raise TargetError(f"target {text!r} is not for a CPU; accepted: {EXAMPLE}")
    options: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not word.startswith("-") or name not in OPTIONS:
            known = ", ".join(f"-{o}" for o in OPTIONS)
            raise TargetError(
                f"unknown option {word!r} in target {text!r}; accepted options: {known};"
                f" {_close(name, OPTIONS)}"
            )
        if not equals or not value or name in options:
            raise TargetError(
                f"option {word!r} in target {text!r} needs one value, as in -{name}=...; accepted:"
                f" {EXAMPLE}"
            )
        options[name] = value
    return options


def _cores(value: str | None, text: str) -> int | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9]{1,6}", value) or not 1 <= int(value) <= _MOST_CORES:
        raise TargetError(
            f"-num-cores={value} in target {text!r} is not a number of 1 or more, up to"
            f" {_MOST_CORES}"
        )
    return int(value)


def _check_mattr(mattr: tuple[str, ...]) -> None:
    for attribute in mattr:
        if attribute[:1] not in ("+", "-"):
            raise TargetError(
                f"feature {attribute!r} in -mattr needs a + or - before it, as in"
                " -mattr=+avx512vnni,-avx512bf16"
            )
        if attribute[1:] not in _host_features():
            raise TargetError(
                f"unknown CPU feature {attribute!r} in -mattr;"
                f" {_close(attribute[1:], tuple(_CPUINFO_NAMES))}"
            )
        if attribute[0] == "-" and attribute[1:] in _BASELINE:
            raise TargetError(
                f"-mattr={attribute}: every x86-64 CPU has {attribute[1:]}, and the code needs it;"
                " leave it out"
            )
        if attribute[0] == "+" and attribute[1:] not in _CPUINFO_NAMES:
            raise TargetError(
                f"-mattr={attribute}: a library that uses {attribute[1:]} cannot tell whether a CPU"
                f" has it; accepted with +: {', '.join(_CPUINFO_NAMES)}"
            )
    names = [attribute[1:] for attribute in mattr]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TargetError(f"-mattr has {twice!r} twice; give it once, with + or -")


def _close(word: str, known: tuple[str, ...]) -> str:
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return (
        f"did you mean {' or '.join(matches)}"
        if matches
        else f"for instance {', '.join(known[:3])}"
    )


def _llvm(function: str, *arguments: Any) -> Any:
    import tvm  # noqa: F401  registers the functions
    import tvm_ffi

    return tvm_ffi.get_global_func(function)(*arguments)


def _description(
    mcpu: str | None, mattr: "list[str] | tuple[str, ...]", num_cores: int | None = None
) -> dict[str, Any]:
    options = {"mcpu": mcpu, "mattr": list(mattr), "num-cores": num_cores}
    return {"kind": "llvm", **{name: value for name, value in options.items() if value}}


@functools.lru_cache(maxsize=1)
def _known_cpus() -> tuple[str, ...]:
    import tvm

    return tuple(
        str(name)
        for name in _llvm("target.llvm_get_cpu_archlist", tvm.target.Target({"kind": "llvm"}))
    )


@functools.lru_cache(maxsize=1)
def _host_features() -> dict[str, bool]:
    """Every instruction-set extension that LLVM knows, and whether this CPU has it."""
    return {
        str(name): bool(value)
        for name, value in _llvm("tvm.codegen.llvm.GetHostCPUFeatures").items()
    }


@functools.lru_cache(maxsize=32)
def _llvm_features(mcpu: str | None, mattr: tuple[str, ...]) -> frozenset[str]:
    import tvm

    features = _llvm("target.llvm_get_cpu_features", tvm.target.Target(_description(mcpu, mattr)))
    return frozenset(str(name) for name in features)


def _native() -> tuple[str, tuple[str, ...]]:
    """LLVM's name for this CPU, and the extensions that the name promises but this machine (a
    hypervisor) does not show."""
    name = str(_llvm("tvm.codegen.llvm.GetHostCPUName"))
    have = _host_features()
    hidden = [f for f in _CPUINFO_NAMES if f in _llvm_features(name, ()) and not have.get(f, False)]
    return name, tuple(f"-{feature}" for feature in hidden)
