"""The zip files that PyTorch writes: what one claims to be, and whether its directory is sane, before anything in it is used."""

import zipfile
from enum import Enum
from pathlib import Path, PurePosixPath

from subpc.errors import ModelFileError

# PyTorch stores tensors uncompressed, and compresses nothing but the source code in TorchScript: more than this is a bomb.
_SLACK_BYTES = 1 << 20
_MAX_PACKED_BYTES = 1 << 26
_MAX_MEMBERS = 200_000


class Kind(Enum):
    """What a PyTorch zip archive holds."""

    STATE_DICT = "state dict or pickled object"
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export program"


def archive_kind(path: Path) -> Kind:
    """What `path` holds; ModelFileError where it is not an archive that PyTorch writes."""
    names = member_names(path)
    parts = {name.split("/", 1)[-1] for name in names}
    if "serialized_exported_program.json" in names or any(part.startswith("models/") and part.endswith(".json") for part in parts):
        return Kind.EXPORTED
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        return Kind.TORCHSCRIPT
    if "data.pkl" in parts:
        return Kind.STATE_DICT
    raise ModelFileError(
        f"{path.name} is a zip file but not one that PyTorch writes ({len(names)} members, no data.pkl).\n"
        "Accepted: torch.save, torch.jit.save and torch.export.save files, .safetensors and .onnx."
    )


def member_names(path: Path) -> list[str]:
    """The members of the archive, after checking that reading them is safe and bounded."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        raise ModelFileError(f"{path.name} is damaged: {error}. Copy or save it again.") from error
    if damaged is not None:
        raise ModelFileError(f"{path.name} is damaged: the checksum of {damaged} is wrong. Copy or save it again.")
    return [member.filename for member in members]


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    size = path.stat().st_size
    if len(set(names)) != len(names) or len(names) > _MAX_MEMBERS:
        raise ModelFileError(f"{path.name} has repeated or too many members; PyTorch does not write such archives.")
    if any(".." in PurePosixPath(name).parts or name.startswith("/") for name in names):
        raise ModelFileError(f"{path.name} has members outside its folder; PyTorch does not write such archives.")
    packed = sum(member.file_size for member in members if member.compress_type != zipfile.ZIP_STORED)
    stored = sum(member.file_size for member in members if member.compress_type == zipfile.ZIP_STORED)
    if packed > _MAX_PACKED_BYTES or stored > size + _SLACK_BYTES:
        raise ModelFileError(f"{path.name} claims to hold {packed + stored} bytes in {size}; PyTorch does not write such archives.")
