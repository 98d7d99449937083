"""`subpc.as_module`: a compiled network as a module, to stand in a PyTorch model where the original
stood."""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from subpc.runtime.model import CompiledModel

if TYPE_CHECKING:
    from torch import nn


def as_module(compiled: CompiledModel) -> "nn.Module":
    """A module that runs `compiled`: `model.backbone = subpc.as_module(compiled)`. It has no
    weights and no gradients.

    Args:
        compiled: from `subpc.compile` or `subpc.load`.

    Returns:
        A module whose result is what the compiled one's was: a tensor, a tuple where outputs have
        no names, and an OrderedDict by name where they have (nested names with dots between:
        `head.bbox_regression`).

    Raises:
        ConfigError: when called, for inputs of a shape or type that the library does not take.
    """
    import torch

    class CompiledModule(torch.nn.Module):
        """Calls the compiled network."""

        def forward(self, *inputs: torch.Tensor) -> Any:
            """The network's result in the form that it has in PyTorch."""
            return _in_form(compiled.output_names, compiled(*inputs))

    return CompiledModule()


def _in_form(names: tuple[str, ...], outputs: Any) -> Any:
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    if names == ("output",):
        return values[0]
    if names == tuple(f"output{i}" for i in range(len(names))):
        return values
    return OrderedDict(zip(names, values, strict=True))
