"""Which layer of one model is which of the other: by name where names agree, else by the order
between those that do."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import SequenceMatcher

Shape = tuple[int, ...]


def match_layers(
    first: Mapping[str, Shape], second: Mapping[str, Shape]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """{layer of a: layer of b}, in a's order, and which of them were matched by order.

    first, second: each layer's result's shape by name, in the order of the network. Layers without
    a namesake lie between the same namesakes in both models; where there are equally many, they are
    paired one by one, else as far as their shapes agree.
    """
    found = same_names(list(first), list(second))
    back = {other: name for name, other in found.items()}
    lonely, others = (
        _gaps(first, found.keys(), {name: name for name in found}),
        _gaps(second, back.keys(), back),
    )
    paired: dict[str, str] = {}
    for place, names in lonely.items():
        paired |= _in_order(names, others.get(place, []), first, second)
    return {
        name: found.get(name) or paired[name] for name in first if name in found or name in paired
    }, tuple(paired)


def _gaps(
    layers: Iterable[str], known: Iterable[str], anchor: Mapping[str, str]
) -> dict[str, list[str]]:
    """The layers that are not known, by the last one before them that is, under its name in a."""
    known, place, gaps = set(known), "", dict[str, list[str]]()
    for name in layers:
        if name in known:
            place = anchor[name]
        else:
            gaps.setdefault(place, []).append(name)
    return gaps


def _in_order(
    names: list[str], others: list[str], first: Mapping[str, Shape], second: Mapping[str, Shape]
) -> dict[str, str]:
    if len(names) == len(others):
        return dict(zip(names, others, strict=True))
    matcher = SequenceMatcher(
        None, [first[name] for name in names], [second[name] for name in others], autojunk=False
    )
    return {
        names[a + i]: others[b + i]
        for a, b, size in matcher.get_matching_blocks()
        for i in range(size)
    }


def same_names(first: list[str], second: list[str]) -> dict[str, str]:
    """The name in b of each layer of a: the same, the module that an exporter made a node's path
    of, or the same letters and digits."""
    found: dict[str, str] = {}
    for spelling in (str, module_path, _plain):
        taken = set(found.values())
        left = _unique(spelling, (name for name in first if name not in found))
        right = _unique(spelling, (name for name in second if name not in taken))
        found |= {name: right[spelled] for spelled, name in left.items() if spelled in right}
    return found


def _unique(spelling: Callable[[str], str], names: Iterable[str]) -> dict[str, str]:
    """{spelled: name} of the names that no other is spelled like."""
    listed = list(names)
    counts = Counter(map(spelling, listed))
    return {spelling(name): name for name in listed if counts[spelling(name)] == 1}


def _plain(name: str) -> str:
    """Names in a compressed file have an underscore for what a file's author wrote."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def module_path(name: str) -> str:
    """`layer1.0.conv1` for PyTorch's ONNX node `/layer1/layer1.0/conv1/Conv`; other names as they
    are."""
    if not name.startswith("/"):
        return name
    parts: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        inside = bool(parts) and part.startswith(parts[-1] + ".")
        parts[-1:] = [part] if inside else [*parts[-1:], part]
    return ".".join(parts)
