"""A compressed model as a safetensors file: its tensors under their names, everything else as JSON
in the header.

Tensors that the JSON does not name are the state dict.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from subpc.errors import ModelFileError

HEADER_KEY, STATE = "subpc", "state_dict"
_TENSOR = "__tensor__"
_MAX_HEADER = 16 << 20


def to_bytes(content: dict[str, Any]) -> bytes:
    """The whole file. Entries of the state dict keep their names, so that other readers find them.

    A dictionary of tensors alone becomes a plain file of tensors.
    """
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        return save({key: value.contiguous() for key, value in content.items()})
    tensors: dict[str, torch.Tensor] = {}
    tree = _without_tensors(
        {key: value for key, value in content.items() if key != STATE}, (), tensors
    )
    taken = tensors.keys() & content.get(STATE, {}).keys()
    if taken:
        raise ModelFileError(
            f"A tensor of the network is named {min(taken)}, as the file names parts of packed"
            " layers."
        )
    return save(
        tensors | content.get(STATE, {}), {HEADER_KEY: json.dumps(tree, separators=(",", ":"))}
    )


def _without_tensors(value: Any, path: tuple[str, ...], tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = "/".join(path)
        tensors[name] = value.contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {key: _without_tensors(entry, (*path, key), tensors) for key, entry in value.items()}
    return (
        [_without_tensors(entry, path, tensors) for entry in value]
        if isinstance(value, list | tuple)
        else value
    )


def from_file(path: Path) -> Any:
    """The content that to_bytes was given, or the tensors by name of a file that it did not write;
    ModelFileError, or whatever safetensors raises for a damaged file.

    The file is read once.
    """
    with safe_open(path, "pt") as file:
        header = (file.metadata() or {}).get(HEADER_KEY)
        if header is not None and len(header) > _MAX_HEADER:
            raise ModelFileError(
                f"{path.name} has a header of {len(header) >> 20} MiB; it is not a compressed"
                " model."
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors if header is None else _tree(path, header, tensors)


def _tree(path: Path, header: str, tensors: dict[str, torch.Tensor]) -> Any:
    """What `header` describes, with its tensors; those that it does not name are the state dict."""
    try:
        used: set[str] = set()
        tree = _with_tensors(json.loads(header), tensors, used)
        if not isinstance(tree, dict) or STATE in tree:
            return tree
        return {
            **tree,
            STATE: {name: tensor for name, tensor in tensors.items() if name not in used},
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path.name} has a damaged header: {str(error)[:80]}.") from error


def _with_tensors(value: Any, tensors: dict[str, torch.Tensor], used: set[str]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            used.add(value[_TENSOR])
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(entry, tensors, used) for key, entry in value.items()}
    return (
        [_with_tensors(entry, tensors, used) for entry in value]
        if isinstance(value, list)
        else value
    )
