"""Arrays from strangers: one line says what is wrong, and no memory is taken for what a header only
claims."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from subpc.errors import ConfigError
from subpc.runtime.arrays import read_npy


def npy(header: str, content: bytes = b"\0" * 16, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + content


def header(shape: str, dtype: str = "'<f4'") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}"


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    return buffer.getvalue()


BAD = {
    "an object array": pickled(),
    "objects in a structure": npy(header("(1,)", "[('a', '|O')]")),
    "a huge shape": npy(header(f"({1 << 40},)")),
    "a shape whose product is too large": npy(header(f"({1 << 20}, {1 << 20}, {1 << 20})")),
    "a negative shape": npy(header("(-4,)")),
    "many empty elements": npy(header(f"({1 << 40},)", "'|V0'")),
    "no shape": npy("{'descr': '<f4', 'fortran_order': False}"),
    "no dictionary": npy("import os"),
    "nested brackets": npy("(" * 9_000),
    "a long header": npy(" " * 60_000),
    "an unknown type": npy(header("(4,)", "'<q9'")),
    "an unknown version": npy(header("(4,)"), version=b"\x09\x00"),
    "a cut array": npy(header("(4,)"), b"\0" * 7),
    "nothing": b"",
    "text": b"hello",
    "a cut archive": b"PK\x03\x04",
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_arrays_are_refused_in_one_line(what: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(BAD[what])
    if packed:
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.write(path, "x.npy")
        path = tmp_path / "x.npz"
    with pytest.raises(ConfigError, match="cannot read") as caught:
        read_npy(path)
    message = str(caught.value)
    assert len(message) < 400 + len(str(path))
    assert "\n" not in message
    assert "allow_pickle" not in message


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(3.0),
        np.zeros((0, 4)),
        np.arange(4) > 1,
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes_is_read(array: np.ndarray, order: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asarray(array, order=order))
    read = read_npy(tmp_path / "x.npy")
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    np.savez_compressed(tmp_path / "x.npz", first=array, second=array)
    both = read_npy(tmp_path / "x.npz")
    assert isinstance(both, dict)
    assert list(both) == ["first", "second"]
    np.testing.assert_array_equal(both["second"], array)
