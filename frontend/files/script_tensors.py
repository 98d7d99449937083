"""Tensors in a TorchScript file lie inside the bytes that the file has for them: PyTorch's reader of scripts does not look."""

import io
import pickle
from typing import Any

import torch

_REBUILD = {"_rebuild_tensor", "_rebuild_tensor_v2"}


class _Anything(dict[Any, Any]):
    """Stands for an object of the file, whatever is put into it."""

    def __new__(cls, *arguments: Any) -> "_Anything":
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""

    def append(self, value: Any) -> None:
        """Nothing is kept."""


class _Tensors(pickle._Unpickler):
    """Follows a pickle without making anything that it names, and looks at the extents of each tensor."""

    def __init__(self, content: bytes, storages: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; storage types by their names."""
        if module == "torch" and name.endswith("Storage"):
            return name
        return _check_tensor if module == "torch._utils" and name in _REBUILD else _Anything

    def persistent_load(self, pid: Any) -> int:
        """The number of elements of a storage."""
        _, kind, key, _, count = pid
        size = getattr(torch, kind.removesuffix("Storage").lower()).itemsize
        if type(count) is not int or not 0 <= count * size <= self.storages[str(key)]:
            raise ValueError("a tensor is larger than its bytes")
        return count


def _check_tensor(storage: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> _Anything:
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or number < 0 for number in numbers) or len(size) != len(stride):
        raise ValueError("a tensor has impossible extents")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage:
        raise ValueError("a tensor reaches beyond its bytes")
    return _Anything()


def check_tensors(name: str, members: dict[str, bytes]) -> None:
    """ValueError, or whatever reading a damaged pickle raises, unless all tensors in the pickle `name` lie inside their storages."""
    folder = name.removesuffix(".pkl")
    _Tensors(members[name], {key.split("/")[1]: len(value) for key, value in members.items() if key.startswith(f"{folder}/")}).load()
