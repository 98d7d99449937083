"""The zip files that PyTorch writes: what one claims to be, and whether its directory is sane,
before anything in it is used."""

import io
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePosixPath
from typing import BinaryIO

from subpc.errors import ModelFileError
from subpc.frontend.messages import printable

# PyTorch stores tensors uncompressed, and compresses nothing but the source code in TorchScript:
# more than this is a bomb.
_SLACK_BYTES = 1 << 20
_MAX_PACKED_BYTES = 1 << 26
_MAX_MEMBERS = 200_000
# What a member of PyTorch's may be called. Readers differ in how they take anything else, such as
# backslashes and accents.
_NAME = re.compile(r"[A-Za-z0-9_.\-+=@ ()\[\],/]{1,1000}")
_DAMAGE = (
    zipfile.BadZipFile,
    OSError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    zlib.error,
)


class ArchiveKind(Enum):
    """What a PyTorch zip archive holds."""

    STATE_DICT = "state dict or pickled object"
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export program"


class Archive:
    """An archive that is open: its directory has been checked. name: the file's, for messages;
    kind: what it holds."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        """Look at the directory of the archive in `file`; ModelFileError unless it is one that
        PyTorch writes, and sane."""
        self.name, self.file = name, file
        try:
            self._zip = zipfile.ZipFile(file)
            self._members = self._zip.infolist()
        except _DAMAGE as error:
            raise self._damaged(str(error)) from error
        _check_members(name, os.fstat(file.fileno()).st_size, self._members)
        self.kind = _kind(name, [member.filename for member in self._members])

    def content(self) -> dict[str, bytes]:
        """The content of each member by its name without the folder that all of them lie in;
        ModelFileError where one is damaged."""
        roots = {member.filename.partition("/")[0] for member in self._members}
        if len(roots) != 1:
            raise ModelFileError(
                f"{self.name} has {len(roots)} folders at its top; PyTorch writes archives with"
                " one."
            )
        try:
            return {
                member.filename.partition("/")[2]: self._zip.read(member)
                for member in self._members
            }
        except _DAMAGE as error:
            raise self._damaged(str(error)) from error

    def verified(self) -> BinaryIO:
        """The file from its beginning, every byte in it compared with its checksum; ModelFileError
        where one is wrong."""
        try:
            wrong = self._zip.testzip()
        except _DAMAGE as error:
            raise self._damaged(str(error)) from error
        if wrong is not None:
            raise self._damaged(f"the checksum of {printable(wrong)} is wrong")
        self.file.seek(0)
        return self.file

    def _damaged(self, reason: str) -> ModelFileError:
        return ModelFileError(
            f"{self.name} is damaged: {printable(reason)[:200]}. Copy or save it again."
        )


def _kind(file: str, members: Sequence[str]) -> ArchiveKind:
    names = [name.lower() for name in members]
    parts = {name.split("/", 1)[-1] for name in names}
    if "serialized_exported_program.json" in names or any(
        part.startswith("models/") and part.endswith(".json") for part in parts
    ):
        return ArchiveKind.EXPORTED
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        return ArchiveKind.TORCHSCRIPT
    if "data.pkl" in parts:
        return ArchiveKind.STATE_DICT
    raise ModelFileError(
        f"{file} is a zip file but not one that PyTorch writes ({len(names)} members, no"
        " data.pkl).\nAccepted: torch.save, torch.jit.save and torch.export.save files,"
        " .safetensors and .onnx."
    )


def written_again(members: Mapping[str, bytes]) -> io.BytesIO:
    """An archive of these members and nothing else: no reader can find in it what was not looked
    at."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    buffer.seek(0)
    return buffer


def _check_members(file: str, size: int, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    # PyTorch's reader takes names in any case for the same.
    if len({name.lower() for name in names}) != len(names) or len(names) > _MAX_MEMBERS:
        raise ModelFileError(
            f"{file} has repeated or too many members; PyTorch does not write such archives."
        )
    if any(".." in PurePosixPath(name).parts or name.startswith("/") for name in names):
        raise ModelFileError(
            f"{file} has members outside its folder; PyTorch does not write such archives."
        )
    strange = [
        member
        for member in members
        if not _NAME.fullmatch(member.filename) or member.orig_filename != member.filename
    ]
    if strange:
        name = printable(strange[0].orig_filename)[:80]
        raise ModelFileError(
            f"{file} has a member with the name {name!r}; PyTorch does not write such archives."
        )
    packed = sum(
        member.file_size for member in members if member.compress_type != zipfile.ZIP_STORED
    )
    stored = sum(
        member.file_size for member in members if member.compress_type == zipfile.ZIP_STORED
    )
    if packed > _MAX_PACKED_BYTES or stored > size + _SLACK_BYTES:
        raise ModelFileError(
            f"{file} claims to hold {packed + stored} bytes in {size}; PyTorch does not write such"
            " archives."
        )
