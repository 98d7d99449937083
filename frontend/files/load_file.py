"""A path to something that can be imported: what the file is, decided from its content, then read
without running any of it."""

import io
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.algorithms.file_format.compressed_file import (
    FORMAT_KEY,
    CompressedFile,
    check_format,
    parse_compressed,
)
from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.algorithms.file_format.safetensors_file import from_file
from subpc.algorithms.numerics.quantizers import Quantized
from subpc.errors import ConfigError, ModelFileError
from subpc.frontend.architectures.default_shape import default_shape
from subpc.frontend.architectures.torchvision_import import import_torchvision
from subpc.frontend.files.archive import Archive, ArchiveKind
from subpc.frontend.files.computed_weights import put_together
from subpc.frontend.files.pt2.check import load_checked
from subpc.frontend.files.pt2.expressions import NotPlain
from subpc.frontend.files.pt2.unsafe import Unsafe
from subpc.frontend.files.state_dict import load_into_arch, network_in, unwrap_checkpoint
from subpc.frontend.from_torch.quantized import register_quantized
from subpc.frontend.from_torch.torchscript import load_torchscript
from subpc.frontend.messages import first_line, printable
from subpc.frontend.parts import take_part
from subpc.model_files import ACCEPTED, check_file

_TWO_WAYS = (
    "Save torch.save(model.state_dict(), ...) and pass --arch, or"
    " torch.export.save(torch.export.export(...), 'model.pt2')."
)
_MAX_FACTS, _MAX_FACT = 64, 200
_TRUST = "Pass --trust-pickle only if you know who made the file."


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What was read from a file: a module or an exported program, and its input's shape where the
    file says it.

    facts: configuration and report of a compressed file, as text.
    assumed_shape: of the input, by the architecture's default, where the file says none.
    arch: the name that the module was built by, with its options; packed: codes and scales of
    layers that the file has them of.
    """

    model: nn.Module | ExportedProgram
    notes: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    assumed_shape: tuple[int, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    arch: str = ""
    arch_options: dict[str, Any] = field(default_factory=dict)
    packed: dict[str, Quantized] = field(default_factory=dict)


def load_torch_file(
    path: Path, *, arch: str | None = None, trust_pickle: bool = False, part: str | None = None
) -> LoadedModel:
    """The PyTorch model in `path`, or a part of it, whose input nothing in the file describes."""
    loaded = _load_whole(path, arch, trust_pickle)
    if part is None:
        return loaded
    return replace(loaded, model=take_part(loaded.model, part), input_shape=(), assumed_shape=())


def _load_whole(path: Path, arch: str | None, trust_pickle: bool) -> LoadedModel:
    with path.open("rb") as file:
        if not _is_archive(file):
            return _from_content(_read_other(path, file, trust_pickle), path, arch)
        archive = Archive(path.name, file)
        if archive.kind is ArchiveKind.EXPORTED:
            return LoadedModel(model=_load_exported(archive, trust_pickle))
        if archive.kind is ArchiveKind.TORCHSCRIPT:
            return LoadedModel(model=load_torchscript(archive))
        return _from_content(_read_pickle(path, archive.verified(), trust_pickle), path, arch)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in `path`, which is one, holds one, or is in the compressed format;
    ModelFileError for anything else.

    Tensors have the shapes that the layers of the network have.
    """
    check_file(path)
    with path.open("rb") as file:
        if _is_archive(file):
            archive = Archive(path.name, file)
            if archive.kind is not ArchiveKind.STATE_DICT:
                raise ModelFileError(
                    f"{path.name} holds code beside its weights. Pass a state dict (.pt, .pth,"
                    " .safetensors) instead."
                )
            content = _read_pickle(path, archive.verified(), False)
        else:
            content = _read_other(path, file, False)
    if isinstance(content, dict) and FORMAT_KEY in content:
        return parse_compressed(content, path.name).state_dict
    return put_together(unwrap_checkpoint(content, path.name)[0])[0]


def _is_archive(file: BinaryIO) -> bool:
    head = file.read(2)
    file.seek(0)
    return head == b"PK"


def _read_other(path: Path, file: BinaryIO, trust_pickle: bool) -> Any:
    """What is no archive: safetensors, or a pickle as older versions of PyTorch wrote it."""
    head = file.read(9)
    file.seek(0)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    return _read_pickle(path, file, trust_pickle)


def _load_exported(archive: Archive, trust_pickle: bool) -> ExportedProgram:
    register_quantized()
    try:
        # A buffer, so that a file is an exported program whatever its name ends with.
        return (
            torch.export.load(io.BytesIO(archive.verified().read()))
            if trust_pickle
            else load_checked(archive)
        )
    except (NotPlain, Unsafe) as error:
        raise ModelFileError(
            f"{archive.name} is refused, because {error}: loading it could run code.\n{_TRUST}"
        ) from error
    except ModelFileError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{archive.name} is not a torch.export file this version of torch can read:"
            f" {first_line(error)}"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = from_file(path)
        return content
    except ModelFileError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{path.name} is not a safetensors file, or is damaged: {first_line(error)}. {ACCEPTED}"
        ) from error


def _read_pickle(path: Path, file: BinaryIO, trust_pickle: bool) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:
        message = " ".join(str(error).split())
        if trust_pickle and "torchvision::" in message and "torchvision" not in sys.modules:
            import_torchvision()
            file.seek(0)
            return _read_pickle(path, file, trust_pickle)
        if not trust_pickle and "GLOBAL" in message:
            raise ModelFileError(
                f"{path.name} holds {_pickled(message)}, and unpickling it could run any"
                f" code.\n{_TWO_WAYS} {_TRUST}"
            ) from error
        raise ModelFileError(
            f"{path.name} is not a PyTorch file, or is damaged: {_reason(error)}\n{ACCEPTED}"
        ) from error


def _reason(error: Exception) -> str:
    """The error, without torch's advice to unpickle anyway."""
    text = first_line(error, 120)
    return "its pickle is malformed" if text.startswith("Weights only load failed") else text


def _pickled(message: str) -> str:
    """What the restricted unpickler met: its message has `GLOBAL package.Class` in it."""
    words = message.partition("GLOBAL ")[2].split()
    return (
        f"the pickled Python object {printable(words[0])[:80]}"
        if words
        else "pickled Python objects"
    )


def _from_content(content: Any, path: Path, arch: str | None) -> LoadedModel:
    if found := network_in(content):
        model, entry = found
        note = f"the network is the entry {entry!r} of {path.name}" if entry else ""
        # Training scripts keep networks in half precision.
        return LoadedModel(
            model=model.float(),
            notes=(f"{path.name} was unpickled, as trust_pickle allows", *([note] if note else [])),
        )
    if isinstance(content, dict) and FORMAT_KEY in content:
        return _own_format(content, path, arch)
    state, notes = unwrap_checkpoint(content, path.name)
    if arch is None:
        raise ConfigError(
            f"{path.name} holds weights only. Pass the architecture, such as --arch"
            " torchvision:resnet50 or my.module:function."
        )
    module, more, options = load_into_arch(arch, state, path.name)
    shape = default_shape(arch, module)
    return LoadedModel(
        model=module, notes=(*notes, *more), arch=arch, arch_options=options, assumed_shape=shape
    )


def _facts(content: dict[str, Any]) -> dict[str, str]:
    """The single values of configuration and report; a file with a strange number of them loses the
    rest."""
    found: dict[str, str] = {}
    for part in (content.get("config"), content.get("report")):
        for key, value in part.items() if isinstance(part, dict) else ():
            if isinstance(value, str | int | float) and len(found) < _MAX_FACTS:
                found[str(key)[:_MAX_FACT]] = (
                    f"{value:.6g}" if isinstance(value, float) else str(value)
                )[:_MAX_FACT]
    return found


def _own_format(content: dict[str, Any], path: Path, arch: str | None) -> LoadedModel:
    check_format(content, path.name)
    named = content.get("arch")
    if arch is None and not isinstance(named, str):
        raise ConfigError(f"{path.name} does not say its architecture. Pass --arch.")
    file = parse_compressed({**content, "arch": arch or named}, path.name)
    found: dict[str, Any] = {
        "input_shape": file.input_shape,
        "packed": file.packed,
        "arch": file.arch,
        "facts": _facts(content),
    }
    if file.graph is not None and arch is None:
        return LoadedModel(model=_from_graph(file, path), **found)
    state, notes = unwrap_checkpoint(file.state_dict, path.name)
    # The file's options fit the architecture that it names, and no other.
    options = file.arch_options if file.arch == named else {}
    module, more, options = load_into_arch(
        file.arch, state, path.name, from_file=arch is None, narrow=True, **options
    )
    shape = () if file.input_shape else default_shape(file.arch, module)
    return LoadedModel(
        model=module, notes=(*notes, *more), arch_options=options, assumed_shape=shape, **found
    )


def _from_graph(file: CompressedFile, path: Path) -> GraphNetwork:
    assert file.graph is not None
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in file.state_dict.items()
    }
    try:
        return GraphNetwork(file.graph, state)
    except ValueError as error:
        raise ModelFileError(
            f"{path.name} does not fit the network that it describes: {error}."
        ) from error
