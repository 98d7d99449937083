"""`subpc.as_module`: a compiled network as a module, to stand in a PyTorch model where the original stood."""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from subpc.runtime import CompiledModel


class CompiledModule(nn.Module):
    """Calls a compiled network; it has no weights and no gradients."""

    def __init__(self, compiled: CompiledModel) -> None:
        super().__init__()
        self.compiled = compiled

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The network's result in the form that it has in PyTorch: a tensor, a tuple, or a dictionary by name."""
        names = self.compiled.output_names
        outputs = self.compiled(*inputs)
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        if names == ("output",):
            return values[0]
        if names == tuple(f"output{i}" for i in range(len(names))):
            return values
        return OrderedDict(zip(names, values, strict=True))


def as_module(compiled: CompiledModel) -> nn.Module:
    """A module that runs `compiled`: `model.backbone = subpc.as_module(compiled)`.

    Args:
        compiled: from `subpc.compile` or `subpc.load`.

    Returns:
        A module whose result is what the compiled one's was: a tensor, a tuple where outputs have no names, and an OrderedDict by name
        where they have (nested names with dots between: `head.bbox_regression`).

    Raises:
        ConfigError: when called, for inputs of a shape or type that the library does not take.
    """
    return CompiledModule(compiled)
