"""What a user has to know when something does not work: versions, CPU, threads, linker, in plain
words."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from subpc.errors import SubpcError, TargetError
from subpc.library.shared_library import Library
from subpc.machine import native
from subpc.machine.cpu import cpu_features, cpu_name
from subpc.machine.linker import find_linker
from subpc.machine.target import isa_of_flags
from subpc.machine.threads import available_threads
from subpc.machine.worker_pool import worker_pool
from subpc.records import Record
from subpc.scratch import scratch_folder
from subpc.versions import version

RUNNING = ("numpy", "apache-tvm", "apache-tvm-ffi", "click", "rich")
COMPILING = ("torch", "torchvision", "onnx", "safetensors")
COMPARING = ("onnxruntime", "openvino", "nncf")


@dataclass(frozen=True, kw_only=True)
class Check(Record):
    """One line of the diagnosis. state: "ok", "note" (works, but worth knowing) or "problem"."""

    state: str
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Record):
    """All lines."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.state != "problem" for check in self.checks)

    @property
    def conclusion(self) -> str:
        """One sentence."""
        if not self.healthy:
            return "Something is wrong; see the lines marked `problem`."
        compiles = any(check.name == "compiler" and check.state == "ok" for check in self.checks)
        return (
            "subpc can compile and run here."
            if compiles
            else "subpc can run libraries here, but not compile models."
        )


def diagnose() -> Diagnosis:
    """Look at everything, in the order in which a compile would need it."""
    return Diagnosis(
        checks=(
            _python(),
            *_packages(),
            _cpu(),
            *_integers(),
            _threads(),
            _runtime(),
            _linker(),
            _compiler(),
        )
    )


def _python() -> Check:
    from subpc import __version__

    text = (
        f"subpc {__version__}, Python {platform.python_version()}, {platform.system()}"
        f" {platform.machine()}"
    )
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return Check(
            state="problem", name="system", text=f"{text}: subpc is made for Linux on x86-64"
        )
    return Check(state="ok", name="system", text=text)


def _packages() -> list[Check]:
    groups = (
        ("running", RUNNING, "problem"),
        ("compiling", COMPILING, "note"),
        ("comparing", COMPARING, "note"),
    )
    return [_group(name, packages, state) for name, packages, state in groups]


def _group(name: str, packages: tuple[str, ...], state: str) -> Check:
    versions = {package: version(package) for package in packages}
    missing = [package for package, found in versions.items() if found is None]
    text = ", ".join(f"{package} {found}" for package, found in versions.items() if found)
    if missing:
        how = (
            f"not installed: {', '.join(missing)}; for {name} models: pip install"
            f" {' '.join(missing)}"
        )
        return Check(state=state, name=name, text="; ".join(filter(None, [text, how])))
    return Check(state="ok", name=name, text=text)


def _cpu() -> Check:
    try:
        have = cpu_features()
    except TargetError as error:
        return Check(state="problem", name="cpu", text=str(error))
    if "avx512f" in have:
        extras = [
            flag for flag in ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8") if flag in have
        ]
        return Check(
            state="ok", name="cpu", text=f"{cpu_name()}: AVX-512 ({', '.join(extras) or 'no VNNI'})"
        )
    if {"avx2", "fma"} <= have:
        return Check(
            state="note",
            name="cpu",
            text=f"{cpu_name()}: AVX2, no AVX-512; libraries run with 256-bit vectors",
        )
    return Check(
        state="note",
        name="cpu",
        text=f"{cpu_name()}: neither AVX-512 nor AVX2; libraries run, but slowly",
    )


def _integers() -> list[Check]:
    """How networks of int8 would run here, so that nobody wonders why they are no faster."""
    try:
        isa = isa_of_flags(cpu_features())
    except TargetError:
        return []  # the line before says so
    if not isa.dot:
        text = f"no instructions that multiply bytes ({isa.name}): compile with --precision float32"
        return [Check(state="note", name="int8", text=text)]
    state = "ok" if isa.dot == "vnni" else "note"
    return [Check(state=state, name="int8", text=f"{isa.integer_path}, level {isa.name}")]


def _threads() -> Check:
    allowed, present = available_threads(), os.cpu_count() or 1
    if allowed < present:
        text = (
            f"{allowed} of {present} CPUs: the affinity mask or the control group's quota allows no"
            " more"
        )
        return Check(state="note", name="threads", text=text)
    return Check(state="ok", name="threads", text=f"{allowed}")


def _attempt(name: str, action: Callable[[], str]) -> Check:
    try:
        return Check(state="ok", name=name, text=action())
    except SubpcError as error:
        return Check(state="problem", name=name, text=str(error))
    except Exception as error:
        return Check(state="problem", name=name, text=f"{type(error).__name__}: {error}")


def _runtime() -> Check:
    def action() -> str:
        native.runtime()
        worker_pool()
        return f"TVM's runtime loads from {native.runtime_folders()[1]}"

    return _attempt("runtime", action)


def _linker() -> Check:
    check = _attempt("linker", lambda: str(find_linker()))
    if check.state == "problem" and version("torch") is None:
        # A deployment runs libraries and never links one.
        return Check(state="note", name=check.name, text=check.text)
    return check


def _compiler() -> Check:
    if version("torch") is None:
        return Check(
            state="note",
            name="compiler",
            text="PyTorch is not installed: libraries can be run here, not compiled",
        )
    return _attempt("compiler", _compile_and_load)


def _compile_and_load() -> str:
    """Take the smallest possible function all the way: code, object file, library, call."""
    import tvm
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    from subpc.machine.target import parse_target
    from subpc.passes.object_files import link_modules

    target = parse_target("llvm -mcpu=native")
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("probe")
        T.arg("first", T.int32())
        T.arg("last", T.int32())
        T.func_attr({"global_symbol": "probe"})
        T.evaluate(0)
    with scratch_folder("doctor") as folder:
        module = tvm.IRModule({"probe": builder.get()})
        library = link_modules([module], target.tvm_target(), Path(folder) / "probe.so")
        loaded = Library.from_file(library)  # its code stays as long as this name
        native.run(loaded.function("probe"), native.Arguments([]), 1)
    return f"a test function was compiled for {target}, linked, loaded and called"
