"""A PyTorch module as an exported program: torch.export, with its reasons in words and without its
noise."""

import copy
import importlib
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.parameter import UninitializedParameter

from subpc.algorithms.network.tensor_kinds import held_tensors, strange_tensors
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.from_torch.bounded_run import run_bounded
from subpc.frontend.messages import first_line, printable
from subpc.frontend.one_at_a_time import capturing
from subpc.frontend.parts import suggested_part

Module = TypeVar("Module", bound=nn.Module)

# What torch.export says of a dataclass, or another class of the model's own, as a result.
_OWN_TYPE = re.compile(r"Found <class '([^']+)'> in output, which is not a known type")
FLOATS = (torch.float16, torch.bfloat16, torch.float64)


def inference_copy(module: Module) -> tuple[Module, tuple[str, ...]]:
    """`module` in eval mode, float32, on the CPU: itself where it is that already, else a copy; and
    what was changed."""
    tensors = [*module.parameters(), *module.buffers()]
    _check_weights(module)
    training = any(
        getattr(part, "training", False) for part in module.modules()
    )  # a frozen script has no mode
    other = sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype in FLOATS})
    notes = [f"weights converted from {' and '.join(other)} to float32"] if other else []
    notes += (
        ["the model was in training mode, and is taken as model.eval() leaves it"]
        if training
        else []
    )
    if not training and not other and all(t.device.type == "cpu" for t in tensors):
        return module, ()
    with quiet():
        return copy.deepcopy(module).cpu().float().eval(), tuple(notes)


def _check_weights(module: nn.Module) -> None:
    """UnsupportedModelError where weights are no arrays of floats, or are not there yet."""
    lazy = [name for name, p in module.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise UnsupportedModelError(
            f"The model has weights without a shape, such as {lazy[0]}: its lazy layers have seen"
            " no input yet.\nCall the model once, or load its weights, and compile then."
        )
    strange = strange_tensors(held_tensors(module))
    if not strange:
        wrong = [
            (name, value)
            for name, value in module.named_parameters()
            if value.dim() and not value.is_floating_point()
        ]
        strange = ", ".join(
            f"{name} is {str(value.dtype).removeprefix('torch.')}" for name, value in wrong[:3]
        )
    if strange:
        raise UnsupportedModelError(
            f"The model has weights that are no plain floats: {strange}.\nPass the network as it"
            " was before quantization or conversion."
        )


@capturing()
def export(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    weights: Iterable[torch.Tensor] | None = None,
) -> ExportedProgram:
    """torch.export, with its reasons for a refusal in two lines instead of a traceback.

    weights: what a module from a file holds; what such a module makes is bounded.
    example_inputs: tensors of the shapes to capture for. Raises ConfigError where the module cannot
    run on them, UnsupportedModelError where it cannot be captured.
    """
    try:
        if weights is not None:
            run_bounded(module, example_inputs, weights)
        else:
            with torch.no_grad():
                module(*example_inputs)
    except UnsupportedModelError:
        raise
    except Exception as error:
        shapes = ", ".join(
            str(tuple(x.shape)) for x in example_inputs if isinstance(x, torch.Tensor)
        )
        advice = suggested_part(module, example_inputs, keyed=True) or "Pass the shape it expects."
        raise ConfigError(
            f"The model cannot run on input of shape {shapes}: {first_line(error)}\n{advice}"
        ) from error
    try:
        with quiet():
            return capture(module, example_inputs)
    except Exception as error:
        if own_type := _OWN_TYPE.search(str(error)):
            raise UnsupportedModelError(
                f"{type(module).__name__} returns {printable(own_type[1])}, a class of its own.\n"
                "Tensors are accepted, in tuples, lists, dictionaries and named tuples: have the"
                " model return those, such as vars(result)."
            ) from error
        advice = (
            suggested_part(module, example_inputs)
            or "The forward pass must not depend on the values in its tensors."
        )
        raise UnsupportedModelError(
            f"torch.export cannot capture {type(module).__name__}: {first_line(error)}\n{advice}"
        ) from error


def capture(module: nn.Module, example_inputs: tuple[Any, ...]) -> ExportedProgram:
    """torch.export, which prints the whole graph to stderr where it fails: what its module prints
    is dropped. For use under `capturing`."""
    names: dict[str, Any] = vars(importlib.import_module("torch.export._trace"))
    names["print"] = lambda *args, **kwargs: None
    try:
        return torch.export.export(module, example_inputs)
    finally:
        del names["print"]


@contextmanager
def quiet() -> Iterator[None]:
    """No gradients, and none of the warnings in which torch tells its own parts what will
    change."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings(
            "ignore", message="The tensor attribute.* assigned during export"
        )  # a hook that computes a weight
        warnings.filterwarnings(
            "ignore",
            message="A model attribute .* requires gradient|The .grad attribute of a Tensor",
        )
        yield
