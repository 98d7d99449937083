"""Inputs in, outputs out: PyTorch tensors and numpy arrays are taken without importing PyTorch."""

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from subpc.errors import ConfigError
from subpc.library.report import TensorInfo
from subpc.machine.memory import ALIGNMENT, address, aligned_empty

if TYPE_CHECKING:
    import torch

    Value: TypeAlias = npt.NDArray[Any] | torch.Tensor


def is_torch(value: object) -> bool:
    """Whether the value is a PyTorch tensor; if PyTorch was never imported, it cannot be one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(value: "Value", name: str) -> npt.NDArray[Any]:
    """A value of any shape as a numpy array, without copying."""
    if isinstance(value, np.ndarray):
        return value
    if not is_torch(value):
        raise ConfigError(
            f"input {name!r} is a {type(value).__name__}; give a numpy array or a PyTorch tensor"
        )
    if value.device.type != "cpu":
        raise ConfigError(f"input {name!r} is on {value.device}; move it with x.cpu()")
    if str(value.dtype) == "torch.bfloat16":  # numpy has no such type
        raise ConfigError(f"input {name!r} is bfloat16; convert it with x.float()")
    try:
        return value.detach().resolve_conj().resolve_neg().numpy()
    except (
        TypeError,
        RuntimeError,
    ) as error:  # sparse, nested, quantized, fake, and what numpy has no type for
        kind = f"{type(value).__name__}, {str(value.layout).removeprefix('torch.')}, {value.dtype}"
        raise ConfigError(
            f"input {name!r} is a tensor that is no plain array of numbers ({kind}); give a"
            " dense one"
        ) from error


def to_torch(array: npt.NDArray[Any]) -> "torch.Tensor":
    """The array, of any shape, as a PyTorch tensor that shares its memory."""
    import torch

    return torch.from_numpy(array)


def check_dtype(array: npt.NDArray[Any], info: TensorInfo) -> None:
    """ConfigError for an array of another type than `info` says: a silent conversion would cost
    time at every call."""
    if array.dtype != np.dtype(info.dtype):
        how = f"x.astype('{info.dtype}') in numpy, x.to(torch.{info.dtype}) in PyTorch"
        raise ConfigError(
            f"input {info.name!r} is {array.dtype}, the model takes {info.dtype}; convert it with"
            f" {how}"
        )


def ready(array: npt.NDArray[Any], info: TensorInfo) -> npt.NDArray[Any]:
    """The array itself where kernels can read it in place (contiguous, aligned), else a copy."""
    if array.flags.c_contiguous and address(array) % ALIGNMENT == 0:
        return array
    copy = aligned_empty(array.shape, info.dtype)
    np.copyto(copy, array)
    return copy
