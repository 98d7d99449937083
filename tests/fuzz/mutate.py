"""Files with something wrong in them: bytes, and for known formats the parts that readers act on,
with checksums made right again."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.bad_values import CANARY, CODE, GLOBALS, NUMBERS, SCRIPT_LINES, TEXTS, VALUES
from tests.fuzz.onnx_parts import change_part

Mutation = Callable[[bytes, Random], bytes]


class _Pickled:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (CANARY,)


def mutated(content: bytes, kind: str, random: Random) -> bytes:
    """`content` with one to three things wrong."""
    for _ in range(random.choice((1, 1, 2, 3))):
        content = random.choice((*STRUCTURED.get(kind, ()), _bytes))(content, random)
    return content


def _bytes(content: bytes, random: Random) -> bytes:
    data = bytearray(content)
    if not data:
        return bytes(data)
    start = random.randrange(len(data))
    length = random.choice((1, 1, 2, 4, 16, 300))
    how = random.randrange(6)
    if how == 0:
        del data[start:]
    elif how == 1:
        data[start : start + length] = random.randbytes(length)
    elif how == 2:
        data[start] ^= 1 << random.randrange(8)
    elif how == 3:
        data[start:start] = data[random.randrange(len(data)) :][:length]
    elif how == 4:
        number = random.choice(
            (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 1 << 40)
        )
        data[start : start + 8] = struct.pack("<Q", number)[: random.choice((1, 2, 4, 8))]
    else:
        del data[start : start + length]
    return bytes(data)


def json_value(value: Any, random: Random) -> Any:
    """`value` with one part of it replaced, removed, repeated or put elsewhere."""
    places: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        item = stack.pop()
        pairs = (
            list(item.items())
            if isinstance(item, dict)
            else list(enumerate(item))
            if isinstance(item, list)
            else []
        )
        places += [(item, key) for key, _ in pairs]
        stack += [entry for _, entry in pairs]
    if not places:
        return random.choice(VALUES)
    holder, key = random.choice(places)
    how = random.randrange(8)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[str(random.choice(TEXTS))] = holder.pop(key)
    elif how == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif how == 3:
        other, place = random.choice(places)
        holder[key] = (
            json.loads(json.dumps(other[place]))
            if place in other or (isinstance(other, list) and place < len(other))
            else None
        )
    elif isinstance(holder[key], str) and holder[key][:1] in ("[", "{") and random.random() < 0.7:
        holder[key] = _json_text(holder[key].encode(), random).decode(
            errors="replace"
        )  # JSON within JSON
    elif isinstance(holder[key], str) and random.random() < 0.8:
        holder[key] = random.choice(TEXTS)
    elif type(holder[key]) in (int, float) and random.random() < 0.8:
        holder[key] = random.choice(NUMBERS)
    else:
        holder[key] = random.choice(VALUES)
    return value


def _json_text(content: bytes, random: Random) -> bytes:
    try:
        value = json.loads(content)
    except ValueError:
        return _bytes(content, random)
    return json.dumps(json_value(value, random), ensure_ascii=random.random() < 0.7).encode(
        errors="surrogatepass"
    )


def _pickle(content: bytes, random: Random) -> bytes:
    how = random.randrange(4)
    if how == 0:
        return pickle.dumps(_Pickled(), protocol=2)
    if how == 1 and b"c" in content:
        start = random.choice([i for i, byte in enumerate(content) if byte == ord("c")])
        return (
            content[:start] + b"c" + random.choice(GLOBALS).encode() + b"\n" + content[start + 1 :]
        )
    if how == 2:
        start = random.randrange(1 + len(content))
        return (
            content[:start]
            + random.choice(
                (b"(", b"R", b"b", b".", b"Q", b"s", b"u", b"\x8a\x08" + b"\x7f" * 8, b"h\xff")
            )
            + content[start:]
        )
    return _bytes(content, random)


def _source(content: bytes, random: Random) -> bytes:
    lines = content.decode(errors="replace").split("\n")
    places = [i for i, line in enumerate(lines) if line.startswith("    ")]
    if not places or random.random() < 0.2:
        return _bytes(content, random)
    place = random.choice(places)
    if random.random() < 0.7:
        lines.insert(place, f"    {random.choice(SCRIPT_LINES)}")
    else:
        lines[place] = lines[random.choice(places)]
    return "\n".join(lines).encode()


def _archive(content: bytes, random: Random) -> bytes:
    """A zip file with one member changed, renamed, added or left out, and its checksums right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:
        return _bytes(content, random)
    if not members:
        return _bytes(content, random)
    index = random.randrange(len(members))
    interesting = [
        i for i, (name, _) in enumerate(members) if name.endswith((".json", ".pkl", ".py", ".npy"))
    ]
    if interesting and random.random() < 0.85:
        index = random.choice(interesting)
    name, old = members[index]
    how = random.randrange(12)
    if how == 0:
        del members[index]
    elif how == 1:
        members[index] = (
            random.choice(
                (name.upper(), name.replace("/", "\\"), "../" + name, "x/" + name, name + "\u0301")
            ),
            old,
        )
    elif how == 2:
        members.append(
            (
                random.choice(
                    (name.upper(), name[:-1] + "x", f"{name}/x", name.replace("data", "Data"))
                ),
                old,
            )
        )
    else:
        change: Mutation = _bytes
        for ending, known in (
            (".json", _json_text),
            (".pkl", _pickle),
            (".py", _source),
            (".npy", _numpy),
        ):
            change = known if name.endswith(ending) else change
        members[index] = (name, change(old, random))
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for name, entry in members:
            archive.writestr(name, entry)
    return buffer.getvalue()


def _safetensors(content: bytes, random: Random) -> bytes:
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
    except (ValueError, struct.error):
        return _bytes(content, random)
    inner = (
        header.get("__metadata__", {}).get("subpc")
        if isinstance(header.get("__metadata__", {}), dict)
        else None
    )
    if isinstance(inner, str) and random.random() < 0.6:
        header["__metadata__"]["subpc"] = _json_text(inner.encode(), random).decode(
            errors="replace"
        )
    else:
        header = json_value(header, random)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _numpy(content: bytes, random: Random) -> bytes:
    texts = [
        b"<f4",
        b"|O",
        b"|V0",
        b"<U99",
        b"(1, 3, 8, 8)",
        b"(1099511627776,)",
        b"(-1,)",
        b"False",
        b"True",
        CODE.encode(),
        b"(",
    ]
    old = random.choice((b"'<f4'", b"(1, 3, 8, 8)", b"'shape'", b"False", b"{"))
    return (
        content.replace(old, random.choice(texts), 1) if old in content else _bytes(content, random)
    )


def _lines(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    index = random.randrange(len(lines))
    lines[index] = (
        random.choice((_json_text, _json_text, _bytes))(lines[index], random)
        if lines[index]
        else b"{" * 5000
    )
    return b"\n".join(lines)


def _any_part(content: bytes, random: Random) -> bytes:
    if content[:2] == b"PK":
        return _archive(content, random)
    return (_safetensors if content[8:9] == b"{" else change_part)(content, random)


STRUCTURED: dict[str, tuple[Mutation, ...]] = {
    "pt2": (_archive,) * 6,
    "torchscript": (_archive,) * 6,
    "state dict": (_archive, _archive, _pickle),
    "compressed .pt": (_archive, _archive),
    "safetensors": (_safetensors,) * 3,
    "compressed .safetensors": (_safetensors,) * 3,
    "onnx": (change_part,) * 3,
    "int8": (_any_part,) * 3,
    "npy": (_archive, _numpy),
    "calibration": (_numpy,) * 2,
    "tuning database": (_lines,) * 3,
}
