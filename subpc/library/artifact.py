"""The library file: an ELF shared object, and behind it the packed weights, the metadata and a
footer with their sizes and checksums.

    [ELF .so] [padding] [weights: float32, page-aligned] [metadata: JSON] [footer: 56 bytes]

A library is read into memory once, and everything is checked there before any of it is executed:
what happens to the file afterwards changes neither code nor weights of a loaded model.
"""

import json
import mmap
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from subpc.errors import ModelFileError, TargetError
from subpc.files import only_regular, replacing
from subpc.library.report import FORMAT_VERSION, Metadata
from subpc.machine.cpu import cpu_name, missing_features
from subpc.machine.memory import HUGE_PAGE

MAGIC = b"SUBPCLIB"
PAGE = 4096
# A metadata block holds one short record a layer; the bound keeps a damaged length from asking for
# gigabytes.
MAX_METADATA = 64 << 20
_MODELS = (".onnx", ".pt", ".pt2", ".pth", ".safetensors")
# magic, format version, reserved, weights offset, weights size, metadata offset, metadata size,
# body checksum, footer checksum
FOOTER = struct.Struct("<8sIIQQQQII")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An opened library: a copy of its file, of which code and weights are parts."""

    path: Path
    metadata: Metadata
    image: mmap.mmap
    code_bytes: int
    weights: npt.NDArray[np.float32]  # (floats,), read-only


def write(
    path: str | Path, shared_object: Path, weights: npt.NDArray[np.float32], metadata: Metadata
) -> None:
    """Write a library in one step, weights (n,) float32 behind the code: readers see the old file
    or the complete new one."""
    code = Path(shared_object).read_bytes()
    text = json.dumps(metadata.to_dict(), separators=(",", ":")).encode()
    if weights.dtype != np.float32 or weights.ndim != 1:
        raise ValueError(
            f"weights must be a 1-d float32 array, got {weights.dtype} of shape {weights.shape}"
        )
    if len(text) > MAX_METADATA:
        raise ValueError(f"metadata of {len(text)} bytes is over the bound of {MAX_METADATA}")
    blob = np.ascontiguousarray(weights).view(np.uint8).data
    with replacing(path) as file:
        checksum = 0
        for chunk in (code, b"\0" * (-len(code) % PAGE), blob, text):
            checksum = zlib.crc32(chunk, checksum)
            file.write(chunk)
        start = len(code) + -len(code) % PAGE
        file.write(_footer(start, len(blob), start + len(blob), len(text), checksum))


def _footer(*numbers: int) -> bytes:
    fields = (MAGIC, FORMAT_VERSION, 0, *numbers)
    return FOOTER.pack(*fields, zlib.crc32(FOOTER.pack(*fields, 0)))


def read_metadata(path: str | Path) -> Metadata:
    """What the library says about itself, after all checks of the file."""
    return _open(Path(path)).metadata


def open_artifact(path: str | Path) -> Artifact:
    """Read a library: size, magic, format version and checksum are checked, nothing is executed."""
    return _open(Path(path))


def check_cpu(artifact: Artifact) -> None:
    """Refuse a library that this CPU cannot run, by the name of the missing feature."""
    missing = missing_features(artifact.metadata.features)
    if missing:
        raise TargetError(
            f"{artifact.path} was compiled for {artifact.metadata.target!r} and needs"
            f" {', '.join(missing)}, which this CPU ({cpu_name()}) lacks; compile it again with"
            " --target 'llvm -mcpu=native' here, or for a CPU that both have"
        )


def _open(path: Path) -> Artifact:
    image = _read(path)
    start, weights_size, metadata = _check(path, image)
    weights = np.frombuffer(image, np.float32, count=weights_size // 4, offset=start)
    weights.flags.writeable = False
    return Artifact(path=path, metadata=metadata, image=image, code_bytes=start, weights=weights)


def _read(path: Path) -> mmap.mmap:
    """A private copy of the file; on huge pages where the system gives them, so that kernels do not
    wait for page-table walks."""
    try:
        with open(path, "rb", buffering=0, opener=only_regular) as file:
            size = os.fstat(file.fileno()).st_size
            if size < FOOTER.size:
                raise ModelFileError(
                    f"{path} is {'empty' if size == 0 else 'too short'}: not a subpc library;"
                    " compile the model again"
                )
            image = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if size >= HUGE_PAGE:
                with suppress(OSError):  # a kernel without huge pages
                    image.madvise(mmap.MADV_HUGEPAGE)
            done = 0
            with memoryview(image) as view:
                while done < size and (count := file.readinto(view[done:])):
                    done += count
    except (OSError, ValueError, OverflowError) as error:
        raise ModelFileError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if done < size:
        raise ModelFileError(
            f"{path} became shorter while it was read; wait until it is written, or copy it again"
        )
    return image


def _check(path: Path, image: mmap.mmap) -> tuple[int, int, Metadata]:
    """Offset and size of the weights, and the metadata, of a file whose every byte is accounted
    for."""
    end = len(image) - FOOTER.size
    magic, version, _, start, weights_size, text_start, text_size, body, own = FOOTER.unpack_from(
        image, end
    )
    if magic != MAGIC:
        raise ModelFileError(
            f"{path} is not a subpc library, or its end is cut off; make one with: {_command(path)}"
        )
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} was made by {'a newer' if version > FORMAT_VERSION else 'an older'} subpc: it"
            f" has library format {version}, this one reads format {FORMAT_VERSION}.\nCompile the"
            " model again with this version, or use the library with the other one."
        )
    fields = FOOTER.unpack_from(image, end)[:-1]
    sizes_fit = (
        start % PAGE == 0
        and text_start == start + weights_size
        and text_start + text_size == end
        and weights_size % 4 == 0
    )
    if (
        zlib.crc32(FOOTER.pack(*fields, 0)) != own
        or not sizes_fit
        or text_size > MAX_METADATA
        or image[:4] != b"\x7fELF"
    ):
        raise ModelFileError(
            f"{path} is damaged (its table of contents does not fit); compile or copy it again"
        )
    with memoryview(image) as view, view[:end] as contents:
        if zlib.crc32(contents) != body:
            raise ModelFileError(f"{path} is damaged (checksum differs); compile or copy it again")
    return start, weights_size, _parse(path, image[text_start:end])


def _command(path: Path) -> str:
    """How to make a library, without a name that would replace a model."""
    if path.suffix in _MODELS:
        return f"subpc compile {path.name} -o {path.stem}.so"
    return f"subpc compile MODEL -o {path.name if path.suffix == '.so' else 'NAME.so'}"


def _parse(path: Path, text: bytes) -> Metadata:
    try:
        return Metadata.from_dict(json.loads(text))
    except (ValueError, RecursionError) as error:  # ConfigError is a ValueError
        raise ModelFileError(
            f"{path} was made by another version of subpc: its metadata cannot be read"
            f" ({str(error)[:200]}).\nCompile the model again with this version."
        ) from error
