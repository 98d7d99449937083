"""The one way in: a module, an exported program or a file becomes Relax functions, one per input shape."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.errors import ConfigError
from subpc.frontend.imported import ImportedModel
from subpc.frontend.torch_import import check_inputs, example_for, import_exported, import_module

__all__ = ["ImportedModel", "import_model"]

Source = nn.Module | ExportedProgram | str | Path


def import_model(
    source: Source,
    *,
    shapes: Sequence[tuple[int, ...]] | None = None,
    example_inputs: Sequence[Any] | torch.Tensor | None = None,
    arch: str | None = None,
    trust_pickle: bool = False,
) -> list[ImportedModel]:
    """Import `source` once per shape; files may need `arch`, and are never unpickled without `trust_pickle`."""
    if isinstance(source, ExportedProgram):
        return [import_exported(source)]
    if isinstance(source, nn.Module):
        return [import_module(source, inputs) for inputs in _inputs(shapes, example_inputs)]
    raise ConfigError(f"{type(source).__name__} is not a model.")


def _inputs(shapes: Sequence[tuple[int, ...]] | None, example_inputs: Any) -> list[tuple[Any, ...]]:
    if example_inputs is not None:
        tensors = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
        return [check_inputs(tensors)]
    if not shapes:
        raise ConfigError("The model does not say its input shape. Pass one, such as --shape 1,3,224,224.")
    return [(example_for(shape),) for shape in shapes]
