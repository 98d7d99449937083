"""A compressed model as a safetensors file: its tensors under their names, everything else as JSON in the header."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from subpc.errors import ModelFileError

HEADER_KEY = "subpc"
_TENSOR = "__tensor__"
_MAX_HEADER = 16 << 20


def to_bytes(content: dict[str, Any]) -> bytes:
    """The whole file. Entries of the state dict keep their names, so that other readers find them.

    A dictionary of tensors alone becomes a plain file of tensors.
    """
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        return save({key: value.contiguous() for key, value in content.items()})
    tensors: dict[str, torch.Tensor] = {}
    tree = _without_tensors(content, (), tensors)
    return save(tensors, {HEADER_KEY: json.dumps(tree)})


def _without_tensors(value: Any, path: tuple[str, ...], tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = path[-1] if path[:1] == ("state_dict",) else "/".join(path)
        tensors[name] = value.contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {key: _without_tensors(entry, (*path, key), tensors) for key, entry in value.items()}
    return [_without_tensors(entry, path, tensors) for entry in value] if isinstance(value, list | tuple) else value


def is_compressed(path: Path) -> bool:
    """Whether the safetensors file `path` was written by to_bytes; whatever safetensors raises for a damaged one."""
    with safe_open(path, "pt") as file:
        return HEADER_KEY in (file.metadata() or {})


def from_file(path: Path) -> Any:
    """The content that to_bytes was given; ModelFileError, or whatever safetensors raises for a damaged file."""
    with safe_open(path, "pt") as file:
        header = (file.metadata() or {}).get(HEADER_KEY, "")
        if len(header) > _MAX_HEADER:
            raise ModelFileError(f"{path.name} has a header of {len(header) >> 20} MiB; it is not a compressed model.")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        return _with_tensors(json.loads(header), tensors)
    except (ValueError, KeyError, RecursionError) as error:
        raise ModelFileError(f"{path.name} has a damaged header: {str(error)[:80]}.") from error


def _with_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(entry, tensors) for key, entry in value.items()}
    return [_with_tensors(entry, tensors) for entry in value] if isinstance(value, list) else value
