"""The pickles in a TorchScript file, followed without making anything: what PyTorch's writer puts
there is understood, and no more.

PyTorch's own reader of scripts looks at little: tensors reach beyond their bytes, a memo of four
billion entries is made, what contains itself is followed for ever, and a storage is read again
wherever it is named.
"""

import math
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

# Classes that the file itself defines, and functions of PyTorch's that its writer names.
_CLASS = re.compile(r"__torch__(\.[A-Za-z0-9_]+)+")
_FOREIGN = re.compile(r"(^|\.)classes(\.|$)")
_STORAGE = re.compile(
    r"torch\.(Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool|ComplexFloat|ComplexDouble|Quantized)\w*Storage"
)
_REBUILT = re.compile(r"torch\._utils\._rebuild_tensor(_v2)?")
_FUNCTION = re.compile(
    r"collections\.OrderedDict|torch\.device|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)"
    r"|torch\.jit\._pickle\.(build_(int|double|bool|tensor)list|build_tensor_from_id|restore_type_tag)"
)
# Values within values. Networks have a dozen; PyTorch takes them apart by recursion, and the stack
# of a process ends.
_MAX_DEPTH = 200
# Values when each is written out wherever it is used: so many, and so many times what the file has.
_VALUES, _COPIES = 1 << 16, 16
# Tied weights share a storage, which is read once for each of them; expanded ones have more
# elements than that.
_MAX_SHARING, _EXPANDED_BYTES = 8, 1 << 26
_INT64 = 1 << 63


class Foreign(ValueError):
    """What a pickle names, and PyTorch's writer does not."""


class _Name(str):
    """A class or function."""


class _Storage(NamedTuple):
    elements: int
    item: int  # bytes of one


class _Value:
    """One value. known: a number, text, name, storage or tuple of values; None for all else, which
    nothing here depends on."""

    __slots__ = ("depth", "fillable", "kept", "known", "size")

    def __init__(
        self, known: Any = None, *, parts: "tuple[_Value, ...]" = (), fillable: bool = False
    ) -> None:
        self.known, self.fillable, self.kept = known, fillable, False
        self.depth, self.size = 1, 1
        self.take(parts)

    def take(self, parts: "tuple[_Value, ...]") -> None:
        """Let it hold these as well."""
        self.depth = max((self.depth, *(part.depth + 1 for part in parts)))
        self.size += sum(part.size for part in parts)
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"values within values, more than {_MAX_DEPTH} deep")


def check_pickle(name: str, members: Mapping[str, bytes]) -> None:
    """Foreign or another ValueError unless the pickle `name` holds what a network needs, and all
    tensors lie inside their storages."""
    folder = name.removesuffix(".pkl")
    storages = {
        key.split("/")[1]: len(value)
        for key, value in members.items()
        if key.startswith(f"{folder}/")
    }
    _Reader(members[name], storages).read()


class _Reader:
    def __init__(self, content: bytes, storages: Mapping[str, int]) -> None:
        self.content, self.storages = content, storages
        self.stack: list[_Value | None] = []  # None: a mark
        self.memo: list[_Value] = []
        self.bytes_left = _MAX_SHARING * sum(storages.values())
        self.elements_left = self.bytes_left + _EXPANDED_BYTES

    def read(self) -> None:
        count, end = 0, 0
        for opcode, argument, place in pickletools.genops(self.content):
            count, end = count + 1, int(place or 0) + 1
            act = _ACTIONS.get(opcode.name)
            if act is None:
                raise Foreign(f"it has the opcode {opcode.name}")
            act(self, argument)
            top = self.stack[-1] if self.stack else None
            if top is not None and top.size > _VALUES + _COPIES * count:
                raise ValueError("it repeats what it holds again and again")
        if end != len(self.content) or len(self.stack) != 1 or self.stack[0] is None:
            raise ValueError("it does not end with one value")

    def push(self, value: _Value) -> None:
        self.stack.append(value)

    def pop(self) -> _Value:
        value = self.stack.pop() if self.stack else None
        if value is None:
            raise ValueError("a value is missing")
        return value

    def popped(self, count: int) -> tuple[_Value, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def to_mark(self) -> tuple[_Value, ...]:
        found: list[_Value] = []
        while self.stack:
            value = self.stack.pop()
            if value is None:
                return tuple(reversed(found))
            found.append(value)
        raise ValueError("a mark is missing")

    def tuple_of(self, parts: tuple[_Value, ...]) -> None:
        self.push(_Value(tuple(part.known for part in parts), parts=parts))

    def fill(self, parts: tuple[_Value, ...]) -> None:
        """Put values into the list, dictionary or object on the stack, which nothing else holds
        yet: so none contains itself."""
        target = self.stack[-1] if self.stack else None
        if target is None or not target.fillable or target.kept:
            raise ValueError("something is filled that is no new list, dictionary or object")
        target.take(parts)

    def fill_pairs(self, parts: tuple[_Value, ...]) -> None:
        if len(parts) % 2 or any(
            isinstance(key.known, tuple) or key.fillable for key in parts[::2]
        ):
            raise ValueError("a dictionary has keys that are no single values")
        self.fill(parts)

    def keep(self, index: int) -> None:
        """PyTorch's writer counts; its reader makes room for whatever number it is given."""
        value = self.pop()
        if index != len(self.memo):
            raise ValueError(f"value {index} is kept as the {len(self.memo)}th")
        value.kept = True
        self.memo.append(value)
        self.push(value)

    def again(self, index: int) -> None:
        if not 0 <= index < len(self.memo):
            raise ValueError(f"value {index} is used, which was not kept")
        self.push(self.memo[index])

    def name(self, argument: str) -> None:
        found = ".".join(argument.split(" "))
        known = any(kind.fullmatch(found) for kind in (_CLASS, _STORAGE, _FUNCTION))
        if not known or _FOREIGN.search(found):
            raise Foreign(f"it holds an object of {found[:80]!r}")
        self.push(_Value(_Name(found)))

    def storage(self) -> None:
        """("storage", type, key, device, number of elements)"""
        known = self.pop().known
        if not isinstance(known, tuple) or len(known) != 5:
            raise ValueError("a storage is described otherwise than in five parts")
        _, kind, key, _, count = known
        if (
            not isinstance(kind, _Name)
            or not _STORAGE.fullmatch(kind)
            or str(key) not in self.storages
        ):
            raise ValueError("a storage is of no kind, or is missing")
        item = int(getattr(torch, kind.rpartition(".")[2].removesuffix("Storage").lower()).itemsize)
        if type(count) is not int or not 0 <= count * item <= self.storages[str(key)]:
            raise ValueError("a tensor is larger than its bytes")
        self.bytes_left -= self.storages[str(key)]
        if self.bytes_left < 0:
            raise ValueError(f"its bytes are read more than {_MAX_SHARING} times")
        self.push(_Value(_Storage(count, item)))

    def call(self) -> None:
        function, arguments = self.popped(2)
        if (
            not isinstance(function.known, _Name)
            or not _FUNCTION.fullmatch(function.known)
            or not isinstance(arguments.known, tuple)
        ):
            raise ValueError("something is called that is no function")
        if _REBUILT.fullmatch(function.known):
            self._tensor(arguments.known)
        self.push(_Value(parts=(arguments,), fillable=function.known == "collections.OrderedDict"))

    def _tensor(self, arguments: tuple[Any, ...]) -> None:
        storage, offset, size, stride = arguments[:4] if len(arguments) > 3 else (None, 0, (), ())
        if (
            not isinstance(storage, _Storage)
            or not isinstance(size, tuple)
            or not isinstance(stride, tuple)
        ):
            raise ValueError("a tensor has no storage or no extents")
        numbers = (offset, *size, *stride)
        if any(type(number) is not int or number < 0 for number in numbers) or len(size) != len(
            stride
        ):
            raise ValueError("a tensor has impossible extents")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.elements:
            raise ValueError("a tensor reaches beyond its bytes")
        self.elements_left -= math.prod(size) * storage.item
        if self.elements_left < 0:
            raise ValueError("its tensors are far larger than its bytes")

    def new(self) -> None:
        kind, arguments = self.popped(2)
        if (
            not isinstance(kind.known, _Name)
            or not _CLASS.fullmatch(kind.known)
            or arguments.known != ()
        ):
            raise ValueError("an object is made of no class")
        self.push(_Value(fillable=True))

    def number(self, value: int) -> None:
        if not -_INT64 <= value < _INT64:
            raise ValueError("a number has more than 64 bits")
        self.push(_Value(value))

    def protocol(self, version: int) -> None:
        if version != 2:
            raise Foreign(f"it has the version {version}")


# What PyTorch's writer of scripts writes.
_ACTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "PROTO": _Reader.protocol,
    "STOP": lambda reader, _: None,
    "MARK": lambda reader, _: reader.stack.append(None),
    **dict.fromkeys(
        ("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"), lambda reader, _: reader.push(_Value())
    ),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _Reader.number),
    "BINUNICODE": lambda reader, text: reader.push(_Value(text)),
    **dict.fromkeys(
        ("EMPTY_LIST", "EMPTY_DICT"), lambda reader, _: reader.push(_Value(fillable=True))
    ),
    "EMPTY_TUPLE": lambda reader, _: reader.tuple_of(()),
    "TUPLE": lambda reader, _: reader.tuple_of(reader.to_mark()),
    "TUPLE1": lambda reader, _: reader.tuple_of(reader.popped(1)),
    "TUPLE2": lambda reader, _: reader.tuple_of(reader.popped(2)),
    "TUPLE3": lambda reader, _: reader.tuple_of(reader.popped(3)),
    "APPEND": lambda reader, _: reader.fill(reader.popped(1)),
    "APPENDS": lambda reader, _: reader.fill(reader.to_mark()),
    "SETITEM": lambda reader, _: reader.fill_pairs(reader.popped(2)),
    "SETITEMS": lambda reader, _: reader.fill_pairs(reader.to_mark()),
    "BUILD": lambda reader, _: reader.fill(reader.popped(1)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Reader.keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Reader.again),
    "GLOBAL": _Reader.name,
    "BINPERSID": lambda reader, _: reader.storage(),
    "REDUCE": lambda reader, _: reader.call(),
    "NEWOBJ": lambda reader, _: reader.new(),
}
