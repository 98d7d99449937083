"""A TorchScript file, made harmless: no code of it runs while it is loaded, and what it runs later
computes and nothing else.

TorchScript is a language that cannot reach Python, but some of its operators write and read files,
and objects of C++ classes are made while a file is loaded. PyTorch itself resolves the names in the
source; so operators are looked at in the graphs that it made, and what would run before that is
refused in the source.
"""

import io
import re
from typing import Any

import torch
from torch.jit._recursive import wrap_cpp_module

from subpc.errors import ModelFileError
from subpc.frontend.files.archive import Archive, written_again
from subpc.frontend.files.safe_operators import script_operator
from subpc.frontend.files.script.growth import bound_growth
from subpc.frontend.files.script.loops import Endless, bound_loops, nodes_within
from subpc.frontend.files.script.pickles import Foreign, check_pickle
from subpc.frontend.files.script.source import Unwritten, checked_source
from subpc.frontend.messages import first_line, printable

_KEPT = re.compile(
    r"data\.pkl|constants\.pkl|version|byteorder|\.data/(version|serialization_id)"
    r"|(data|constants)/\d{1,9}|code/[A-Za-z0-9_./]{1,500}\.py"
)
_LEFT_OUT = re.compile(
    r"code/.*\.debug_pkl|(extra|traced_inputs)/.*|traced_inputs\.pkl|\.format_version|bytecode\.pkl|mobile_debug_handles\.pkl"
)
# Methods that run while a file is loaded or copied, and C++ classes.
_AT_LOAD = re.compile(
    rb"__(set|get)state__|__forward_(pre_)?hooks__|torch\s*\.\s*classes|__torch__\s*\.\s*torch\s*\.\s*classes"
)


def checked_archive(archive: Archive) -> io.BytesIO:
    """The archive without what a network does not need; ModelFileError where loading it would run
    code."""
    members = archive.content()
    kept = {name: content for name, content in members.items() if _KEPT.fullmatch(name)}
    strange = [name for name in members if name not in kept and not _LEFT_OUT.fullmatch(name)]
    if strange or "data.pkl" not in kept or "constants.pkl" not in kept:
        raise _refused(
            archive.name,
            (
                f"holds {strange[0][:80]}"
                if strange
                else "lacks data.pkl or constants.pkl, as older versions' files do"
            ),
        )
    try:
        kept = checked_source(kept)
    except Unwritten as error:
        raise _refused(
            archive.name, f"has source that PyTorch does not write: {printable(str(error))}"
        ) from error
    for name, content in kept.items():
        if name.startswith("code/") and _AT_LOAD.search(content):
            raise _refused(
                archive.name,
                f"has methods or C++ classes in {name[:80]} that run while it is loaded",
            )
        if name.endswith(".pkl"):
            _check_pickle(archive.name, name, kept)
    return written_again(kept)


def load_checked(archive: Archive) -> torch.jit.ScriptModule:
    """The script in `archive`, whose loops end; ModelFileError where it does more than compute, or
    whatever PyTorch raises."""
    unit: Any = torch._C.CompilationUnit()
    content = checked_archive(archive).getvalue()
    load: Any = torch._C.import_ir_module_from_buffer
    loaded = load(unit, content, torch.device("cpu"), {}, False)
    _check_operators(archive.name, unit)
    try:
        bound_loops(unit, loaded)
        bound_growth(unit)
    except Endless as error:
        raise ModelFileError(
            f"{archive.name} cannot be run: {error}.\nExport the network with torch.export.save"
            " instead."
        ) from error
    script: torch.jit.ScriptModule = wrap_cpp_module(loaded)  # type: ignore[no-untyped-call]
    return script


def _check_operators(file: str, unit: Any) -> None:
    """Look at every function and method, called or not: sorting a list calls the method that
    compares its entries."""
    functions: list[Any] = []
    while len(functions) < len(unit.get_functions()):  # asking for a graph may define what it calls
        functions = unit.get_functions()
        for node in (node for function in functions for node in nodes_within(function.graph)):
            kind, schema = node.kind(), node.schema()
            overload = (
                torch._C.parse_schema(schema).overload_name
                if kind.startswith("aten::") and schema != "(no schema)"
                else ""
            )
            if not script_operator(kind, overload):
                raise ModelFileError(
                    f"{file} calls {printable(kind)[:80]}, which no network needs; what reads or"
                    " writes files, starts processes or prints is refused.\nExport the model"
                    " without it, and with float weights."
                )


def _check_pickle(file: str, name: str, members: dict[str, bytes]) -> None:
    try:
        check_pickle(name, members)
    except Foreign as error:
        raise _refused(
            file, f"has a pickle {name} that PyTorch does not write: {printable(str(error))}"
        ) from error
    except Exception as error:
        raise ModelFileError(
            f"{file} is damaged: {name} cannot be read ({printable(first_line(error))})."
        ) from error


def _refused(file: str, reason: str) -> ModelFileError:
    return ModelFileError(
        f"{file} {reason}, which a network does not need, so it is refused.\n"
        "Save it with torch.jit.save and this version of torch, or use torch.export.save."
    )
