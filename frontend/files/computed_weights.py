"""Weights that a training script keeps in parts: pruning masks, weight norm and spectral norm, put
together as the layer would."""

from collections.abc import Collection, Mapping

import torch

State = dict[str, torch.Tensor]


def put_together(
    state: Mapping[str, torch.Tensor], own: Collection[str] = ()
) -> tuple[State, tuple[str, ...]]:
    """The state dict with each weight in one piece, and what was done; names in `own` are the
    network's, and stay.

    Shapes stay, as a layer has them: (filters, channels, ...) for a convolution.
    """
    result, found = dict(state), dict[str, int]()
    for key in state:
        for what, names in _parts(key):
            if key in own or not all(name in result for name in names[1:]):
                continue
            weight = _weight(what, [result[name] for name in names[1:]])
            if weight is not None:
                for name in names[1:]:
                    del result[name]
                result[names[0]] = weight
                found[what] = found.get(what, 0) + 1
    return result, tuple(
        f"{count} weights computed from their parts ({what})" for what, count in found.items()
    )


def _parts(key: str) -> list[tuple[str, list[str]]]:
    """What `key` may be the first part of: the name, then those of the weight and of all parts."""
    if key.endswith("_orig"):
        name = key.removesuffix("_orig")
        return [
            ("pruning", [name, key, f"{name}_mask"]),
            ("spectral norm", [name, key, f"{name}_u", f"{name}_v"]),
        ]
    if key.endswith("_g"):
        name = key.removesuffix("_g")
        return [("weight norm", [name, key, f"{name}_v"])]
    if ".parametrizations." in f".{key}":
        layer, _, rest = f".{key}".rpartition(".parametrizations.")
        name, _, part = rest.rpartition(".")
        place, weight = key.removesuffix(f".{part}"), f"{layer}.{name}".lstrip(".")
        if part == "original0":
            return [("weight norm", [weight, key, f"{place}.original1"])]
        if part == "original":
            return [("spectral norm", [weight, key, f"{place}.0._u", f"{place}.0._v"])]
    return []


def _weight(what: str, parts: list[torch.Tensor]) -> torch.Tensor | None:
    """The weight, or None where the parts do not fit each other."""
    first, second = parts[0].float(), parts[1].float()
    if what == "pruning":
        return first * second if first.shape == second.shape else None
    if what == "weight norm":
        fits = (
            first.dim() == second.dim() and first.numel() == first.shape[0] == second.shape[0]
            if first.dim()
            else False
        )
        return (
            second * (first / second.flatten(1).norm(dim=1).view_as(first))
            if fits and second.dim() > 1
            else None
        )
    matrix, third = first.flatten(1) if first.dim() > 1 else first[None], parts[2].float()
    if second.shape != matrix.shape[:1] or third.shape != matrix.shape[1:]:
        return None
    return first / (second @ matrix @ third)
