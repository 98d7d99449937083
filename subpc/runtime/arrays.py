"""Arrays in .npy and .npz files.

Writing takes any names, also those that `numpy.savez` keeps for its own arguments. Reading compares
what a header claims with what the file holds before any memory is taken for it.
"""

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from subpc.errors import ConfigError
from subpc.files import only_regular

_WRITE = "write it with numpy.save('x.npy', x)"
_MAX_ARCHIVE_BYTES = 8 << 30


def save_arrays(file: str | os.PathLike[str] | Any, arrays: Mapping[str, np.ndarray]) -> None:
    """What numpy.savez(file, **arrays) writes, for numpy.load: never a pickle, and files are not
    renamed."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            # A zip archive ends a name where it has a zero.
            with archive.open(
                name.replace("\0", r"\x00") + ".npy", "w", force_zip64=True
            ) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_npy(path: str | Path) -> dict[str, npt.NDArray[Any]] | npt.NDArray[Any]:
    """The array, of any shape, in a .npy file, or {name: array} in an .npz file; ConfigError in one
    line for anything else."""
    try:
        with open(path, "rb", opener=only_regular) as file:
            if file.read(2) == b"PK":
                return _read_archive(Path(path))
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            return _read_array(file, size)
    except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ConfigError(f"cannot read {path}: its header is damaged; {_WRITE}") from error
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        message = (
            getattr(error, "strerror", None)
            or (str(error).splitlines() or ["it is damaged"])[0][:120]
        )
        raise ConfigError(f"cannot read {path}: {message}; {_WRITE}") from error


def _read_archive(path: Path) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > _MAX_ARCHIVE_BYTES:
            raise ValueError(f"it claims to hold more than {_MAX_ARCHIVE_BYTES >> 30} GiB")
        found = {}
        for member in members:
            with archive.open(member) as file:
                found[member.filename.removesuffix(".npy")] = _read_array(file, member.file_size)
        return found


def _read_array(file: IO[bytes], size: int) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"its format {version[0]}.{version[1]} is not known")
    shape, fortran, dtype = readers[version](file, max_header_size=10_000)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code; numbers are accepted")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or count * dtype.itemsize > size:
        raise ValueError(
            f"it claims to hold an array of {'x'.join(map(str, shape))[:60]} and has {size} bytes"
        )
    content = file.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise ValueError("it is cut short")
    array = np.frombuffer(bytearray(content), dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
