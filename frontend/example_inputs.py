"""What a PyTorch model is traced with: tensors for shapes, or what the user gave, checked; and what
a model says of its inputs."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.algorithms.network.tensor_kinds import strange_kind
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.input_shapes import DTYPES, Input, InputShape
from subpc.frontend.parts import Part

_FLOATS = ("float16", "bfloat16", "float64")
# What a forward pass may take beside tensors: such values become part of the program.
_CONSTANTS = (bool, int, float, str, type(None))
# Of one input: above, nothing that a network computes of it has room.
_LARGEST = 1 << 28
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def model_inputs(model: nn.Module | ExportedProgram) -> list[Input]:
    """The inputs, as far as the model says them; one of a general name where it says nothing."""
    if isinstance(model, ExportedProgram):
        return _program_inputs(model)
    found = (
        _script_inputs(model)
        if isinstance(model, torch.jit.ScriptModule)
        else _module_inputs(model)
    )
    return found or [Input(name="input")]


def _program_inputs(program: ExportedProgram) -> list[Input]:
    names = set(program.graph_signature.user_inputs)
    values = {
        n.name: n.meta.get("val")
        for n in program.graph.find_nodes(op="placeholder")
        if n.name in names
    }
    return [
        Input(
            name=name,
            shape=tuple(n if isinstance(n, int) else str(n) for n in value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
        )
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    ]


def _script_inputs(script: torch.jit.ScriptModule) -> list[Input]:
    arguments = script._c._get_method("forward").schema.arguments[1:]
    return [Input(name=str(a.name), optional=a.has_default_value()) for a in arguments]


def _module_inputs(module: nn.Module) -> list[Input]:
    parameters = inspect.signature(
        (module.entry if isinstance(module, Part) else module).forward
    ).parameters.values()
    return [
        Input(name=p.name, optional=p.default is not p.empty)
        for p in parameters
        if p.kind in _POSITIONAL
    ]


def example_for(shape: Sequence[int]) -> torch.Tensor:
    """An input of `shape` for tracing, float32 unless it says another type; not all zeros, which
    some networks divide by."""
    if not shape or any(n < 1 for n in shape):
        raise ConfigError(
            f"Input shape {tuple(shape)} is not valid: every dimension must be 1 or more, such as"
            " 1,3,224,224."
        )
    if math.prod(shape) > _LARGEST:
        raise ConfigError(
            f"Input shape {','.join(map(str, shape))} is too large: at most {_LARGEST} numbers are"
            " accepted."
        )
    dtype = getattr(torch, getattr(shape, "dtype", "") or "float32")
    size, draw = tuple(shape), torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.rand(size, generator=draw).to(dtype)
    return torch.randint(0, 256 if dtype is torch.uint8 else 2, size, generator=draw, dtype=dtype)


def given_examples(given: Any, inputs: Sequence[Input]) -> tuple[Any, ...]:
    """Example inputs as a user gives them (one, several, or by name), in order; ConfigError for
    what a compiled model does not take."""
    if isinstance(given, Mapping):
        given = _in_order(given, inputs)
    elif (
        isinstance(given, torch.Tensor | np.ndarray)
        or not isinstance(given, Sequence)
        or isinstance(given, str)
    ):
        given = (given,)
    values = tuple(_checked(value, index) for index, value in enumerate(given))
    if not any(isinstance(value, torch.Tensor) for value in values):
        kinds = ", ".join(type(value).__name__ for value in values) or "nothing"
        raise ConfigError(
            f"Example inputs are {kinds}; a tensor, a tuple of tensors, or a dictionary by input"
            " name is accepted."
        )
    return values


def _in_order(given: Mapping[Any, Any], inputs: Sequence[Input]) -> list[Any]:
    names = [info.name for info in inputs]
    wrong = [name for name in given if name not in names]
    missing = [info.name for info in inputs if info.name not in given and not info.optional]
    used = names[: len(given)]
    if wrong or missing or set(used) != set(given):
        raise ConfigError(
            f"Example inputs {', '.join(map(repr, given))} were given; the model takes"
            f" {', '.join(map(repr, names))}."
        )
    return [given[name] for name in used]


def _checked(value: Any, index: int) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        try:
            value = torch.from_numpy(np.array(value))
        except TypeError as error:
            raise ConfigError(
                f"Example input {index} is a numpy array of {value.dtype}; accepted:"
                f" {', '.join(DTYPES)}."
            ) from error
    if isinstance(value, torch.Tensor):
        return _plain(value, index)
    if isinstance(value, _CONSTANTS):
        return value
    if isinstance(value, list | tuple | Mapping) and _has_tensors(value):
        raise UnsupportedModelError(
            f"Example input {index} is a {type(value).__name__} of tensors; compiled models take"
            " each tensor as an input of its own.\nWrap the model in a module whose forward takes"
            " them one by one."
        )
    raise ConfigError(
        f"Example input {index} is a {type(value).__name__}; a tensor or a numpy array is accepted."
    )


def _has_tensors(value: Any) -> bool:
    entries = value.values() if isinstance(value, Mapping) else value
    return any(isinstance(entry, torch.Tensor | np.ndarray) for entry in entries)


def _plain(value: torch.Tensor, index: int) -> torch.Tensor:
    """A dense tensor with numbers in the memory of this machine, on the CPU."""
    kind = strange_kind(value)
    if kind:
        raise ConfigError(
            f"Example input {index} is {kind}; compiled models take dense tensors. Pass"
            f" torch.rand({_size(value)})."
        )
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype in _FLOATS:
        raise ConfigError(
            f"Example input is {dtype}; compiled models take float32. Pass `x.float()`."
        )
    if dtype not in DTYPES:
        raise ConfigError(f"Example input {index} is {dtype}; accepted: {', '.join(DTYPES)}.")
    return value.detach().cpu() if value.device.type != "cpu" else value.detach()


def _size(value: torch.Tensor) -> str:
    return "1, 3, 224, 224" if value.is_nested else ", ".join(map(str, value.shape))


def shapes_of(inputs: Sequence[Any]) -> list[InputShape]:
    """The shapes of example inputs, for models whose file has everything else."""
    return [
        InputShape(x.shape, dtype=str(x.dtype).removeprefix("torch."))
        for x in inputs
        if isinstance(x, torch.Tensor)
    ]
