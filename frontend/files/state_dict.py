"""A dictionary of tensors into an architecture: every key must fit, and what does not is listed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from subpc.algorithms.network.channels import fit_widths
from subpc.algorithms.network.tensor_kinds import check_state
from subpc.errors import ModelFileError
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.files.computed_weights import put_together
from subpc.frontend.messages import printable

# Where training scripts put the weights beside the epoch and the optimizer.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "model_ema", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.")
# Heads that torchvision uses in training only.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_MAX_KEYS, _MAX_KEY = 5, 120
# Old checkpoints lack the counter that only training reads.
_COUNTER = "num_batches_tracked"


def network_in(content: Any) -> tuple[nn.Module, str] | None:
    """The network in what a training script pickled, and the entry that it is in; None where there
    is none."""
    if isinstance(content, nn.Module):
        return content, ""
    entries = content if isinstance(content, Mapping) else {}
    # Where averaged weights are kept beside the last ones, they are those that are meant to be
    # used.
    return next(
        (
            (entries[key], key)
            for key in ("ema", *_WRAPPERS)
            if isinstance(entries.get(key), nn.Module)
        ),
        None,
    )


def unwrap_checkpoint(content: Any, file: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The state dict in what a training script saved, in float32, and notes on what was changed.

    Tensors of any shape by the network's names. ModelFileError where there is no state dict.
    """
    notes = []
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            notes.append(f"weights taken from the entry {key!r} of {file}")
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) for k in content)
    ):
        raise ModelFileError(
            f"{file} holds {_what(content)}, not a state dict.\nSave it with"
            " torch.save(model.state_dict(), ...)."
        )
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if len(tensors) < len(content):
        other = [key for key in content if key not in tensors]
        raise ModelFileError(
            f"{file} has entries that are not tensors: {_some(other)}.\nSave it with"
            " torch.save(model.state_dict(), ...)."
        )
    check_state(tensors, file)
    tensors, prefix = _without_prefix(tensors)
    if prefix:
        notes.append(f"prefix {prefix!r} removed from the names in {file}")
    return _float32(tensors, notes), tuple(notes)


def load_into_arch(
    arch: str,
    state: dict[str, torch.Tensor],
    file: str,
    *,
    from_file: bool = False,
    narrow: bool = False,
    **options: Any,
) -> tuple[nn.Module, tuple[str, ...], dict[str, Any]]:
    """The architecture with `state` in it, notes, and the options it was built with; ModelFileError
    with the keys that do not fit.

    narrow: layers take the state's widths where those are smaller, as channel pruning leaves them.
    """
    notes: list[str] = []
    module = build_arch(arch, from_file=from_file, **options)
    state, more = _fitted(state, module.state_dict())
    notes += more
    if narrow:
        fit_widths(module, state)
    auxiliary = [key for key in state if key.startswith(_AUXILIARY)]
    own = module.state_dict()
    own_auxiliary = [key for key in own if key.startswith(_AUXILIARY)]
    if own_auxiliary and not auxiliary:
        state = {**state, **{key: own[key] for key in own_auxiliary}}  # unused in inference
    classes = _other_classes(own, state)
    if classes is not None:
        options = {**options, "num_classes": classes}
        module = build_arch(arch, from_file=from_file, **options)
        if narrow:
            fit_widths(module, state)
        own = module.state_dict()
        notes.append(f"{arch} built with {classes} classes, as {file} has")
    problems = _mismatch(own, state)
    if problems:
        raise ModelFileError(
            f"{file} does not fit {arch}: {problems}.\nPass the --arch it was saved from."
        )
    _check_types(own, state, file)
    module.load_state_dict(state, strict=False)
    return module.eval(), tuple(notes), options


def _fitted(
    state: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """`state` by the network's names, where its own are those of parts of weights, or of a part of
    what was trained."""
    state, computed = put_together(state, own.keys())
    notes = list(computed)
    wanted = {key for key in own if not key.endswith(_COUNTER) and not key.startswith(_AUXILIARY)}
    if not wanted or wanted <= state.keys():
        return state, notes
    first = min(wanted)
    for prefix in [key.removesuffix(first) for key in state if key.endswith(f".{first}")]:
        part = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        if wanted <= part.keys() and all(key in own for key in part):
            others = [key for key in state if not key.startswith(prefix)]
            return part, [
                *notes,
                f"weights taken from {prefix[:_MAX_KEY]!a}; left out: {_some(others)}",
            ]
        if wanted & part.keys() and not wanted & state.keys():
            return (
                part,
                notes,
            )  # does not fit; the names that differ are told by the network's own names
    return state, notes


def _check_types(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], file: str
) -> None:
    """Integers, truth values and complex numbers would be taken for floats: without their scales
    they are other weights."""
    wrong = [
        f"{key} ({str(state[key].dtype).removeprefix('torch.')})"
        for key in own
        if key in state and own[key].is_floating_point() and not state[key].is_floating_point()
    ]
    if wrong:
        raise ModelFileError(
            f"{file} has {_some(wrong)} where the network has float weights.\nSave the network"
            " before quantization, or multiply the weights by their scales: weight.float() *"
            " scale."
        )


def start_from(module: nn.Module, state: dict[str, torch.Tensor], file: str) -> tuple[str, ...]:
    """Load weights to train on from; a last layer of another number of classes stays as it is, and
    is returned by name.

    state: tensors of the shapes in `module`, but for its last layer. ModelFileError for others.
    """
    own = module.state_dict()
    heads = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)][-1:]
    new = [f"{name}.{part}" for name in heads for part in ("weight", "bias")]
    kept = tuple(
        key for key in new if key in own and key in state and own[key].shape != state[key].shape
    )
    state = {**state, **{key: own[key] for key in kept}}
    problems = _mismatch(own, state)
    if problems:
        raise ModelFileError(
            f"{file} does not fit the architecture: {problems}.\nPass the --arch it was saved from."
        )
    _check_types(own, state, file)
    module.load_state_dict(state, strict=False)
    return kept


def _other_classes(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> int | None:
    """The number of classes where nothing but the output size of the last layer differs: a
    fine-tuned network."""
    differing = [
        (own[key].shape, state[key].shape)
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    heads = {
        (a[0], b[0]) for a, b in differing if len(a) == len(b) and len(a) > 0 and a[1:] == b[1:]
    }
    if (
        len(differing) == 0
        or len(heads) != 1
        or len(differing) > 2 * (1 + len([k for k in own if k.startswith(_AUXILIARY)]))
    ):
        return None
    old, new = heads.pop()
    return int(new) if old == 1000 and all(a[1:] == b[1:] for a, b in differing) else None


def _mismatch(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    missing = [key for key in own if key not in state and not key.endswith(_COUNTER)]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{printable(key)[:_MAX_KEY]} is {tuple(state[key].shape)} instead of"
        f" {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes)]
    return "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in parts if keys)


def _without_prefix(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return {key.removeprefix(prefix): value for key, value in tensors.items()}, prefix
    return tensors, ""


def _float32(tensors: dict[str, torch.Tensor], notes: list[str]) -> dict[str, torch.Tensor]:
    other = sorted(
        {
            str(t.dtype).removeprefix("torch.")
            for t in tensors.values()
            if t.is_floating_point() and t.dtype != torch.float32
        }
    )
    if other:
        notes.append(f"weights converted from {' and '.join(other)} to float32")
    return {
        key: value.float() if value.is_floating_point() else value for key, value in tensors.items()
    }


def _some(keys: list[str]) -> str:
    more = f", ... ({len(keys) - _MAX_KEYS} more)" if len(keys) > _MAX_KEYS else ""
    return ", ".join(printable(key)[:_MAX_KEY] for key in keys[:_MAX_KEYS]) + more


def _what(content: Any) -> str:
    return (
        "nothing" if isinstance(content, Mapping) and not content else f"a {type(content).__name__}"
    )
