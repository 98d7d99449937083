"""Names for what a PyTorch program returns: the keys, fields and positions by which its author
finds a tensor in the result."""

from collections import Counter
from typing import Any

from torch.utils import _pytree as pytree


def output_names(spec: pytree.TreeSpec | None, count: int) -> tuple[str, ...]:
    """One name for each of `count` tensors in a result of the form `spec`: `out`, `features.0`;
    without keys `output` or `output0`."""
    paths = _paths(spec, count)
    if paths == [()]:
        return ("output",)
    names = [
        ".".join(_part(key, first=depth == 0) for depth, key in enumerate(path)) or f"output{i}"
        for i, path in enumerate(paths)
    ]
    repeated = {name for name, times in Counter(names).items() if times > 1}
    return tuple(f"output{i}" if name in repeated else name for i, name in enumerate(names))


def _paths(spec: pytree.TreeSpec | None, count: int) -> list[tuple[Any, ...]]:
    """The way to each tensor; positions where the form of the result is not known."""
    positions: list[tuple[Any, ...]] = [(pytree.SequenceKey(i),) for i in range(count)]
    try:
        found = (
            []
            if spec is None
            else [
                path
                for path, _ in pytree.tree_flatten_with_path(
                    pytree.tree_unflatten(range(count), spec)
                )[0]
            ]
        )
    except Exception:  # a class that takes nothing but tensors
        found = []
    # A result that is one tensor in a list has no name to tell it from others.
    return (
        [()]
        if count == 1 and all(isinstance(key, pytree.SequenceKey) for path in found for key in path)
        else _fitting(found, positions)
    )


def _fitting(
    found: list[tuple[Any, ...]], positions: list[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    return found if len(found) == len(positions) else positions


def _part(key: Any, *, first: bool) -> str:
    if isinstance(key, pytree.SequenceKey):
        return f"output{key.idx}" if first else str(key.idx)
    return str(key.key if isinstance(key, pytree.MappingKey) else getattr(key, "name", key))
