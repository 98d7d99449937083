"""Where an ONNX file keeps weights outside of itself, from its structure alone: it is not parsed,
and no weight is read."""

import mmap
from collections.abc import Iterator
from pathlib import Path

# Numbers of fields in onnx.proto, by message: those that lead to tensors, which have places.
_MODEL = {7: "graph", 25: "function"}
_FIELDS = {
    "model": _MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "place"},
}
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Graphs within graphs: ONNX itself stops there.
_MAX_DEPTH = 100
_MAX_VARINT = 10


def external_places(path: Path) -> list[str]:
    """The paths that tensors of the model in `path` name, each once; OSError or ValueError where it
    is damaged."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return list(dict.fromkeys(_places(content, "model", 0, len(content), 0)))


def _places(content: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("messages are nested too deeply")
    for field, first, last in _parts(content, start, end):
        inner = _FIELDS[message].get(field)
        if inner == "place":
            entry = {number: content[a:b] for number, a, b in _parts(content, first, last)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode()
        elif inner is not None:
            yield from _places(content, inner, first, last, depth + 1)


def _parts(content: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of the fields of a message that are messages or bytes."""
    while place < end:
        tag, place = _varint(content, place, end)
        kind = tag & 7
        if kind == _BYTES:
            size, place = _varint(content, place, end)
            if place + size > end:
                raise ValueError("a field reaches beyond its message")
            yield tag >> 3, place, place + size
            place += size
        elif kind == _VARINT:
            _, place = _varint(content, place, end)
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(content: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """The number at `place`, and where it ends."""
    value = 0
    for index in range(_MAX_VARINT):
        if place + index >= end:
            raise ValueError("a number is cut")
        byte = content[place + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, place + index + 1
    raise ValueError("a number is too long")
