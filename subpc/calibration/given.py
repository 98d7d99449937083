"""What a user calibrates with: a folder of images, a file of arrays, or arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subpc.errors import ConfigError
from subpc.images.fashion_mnist import folder_named_by
from subpc.images.prepare import Preparation
from subpc.images.unlabelled import MAX_IMAGES, read_calibration
from subpc.library.report import TensorInfo
from subpc.progress import Progress, silent
from subpc.runtime.arrays import read_npy
from subpc.text import first_line

_ACCEPTED = "a folder of images, fashion-mnist[:FOLDER], a .npy or .npz file, or arrays"


@dataclass(frozen=True, kw_only=True)
class CalibrationInputs:
    """For each input (n, ...) of a network an array (k n, ...) of its type, with one k for all;
    what a report says about them, and {file: why it was left out}."""

    arrays: tuple[Tensor, ...]
    label: str
    skipped: dict[str, str] = field(default_factory=dict)


def calibration_inputs(
    source: Any, inputs: Sequence[TensorInfo], how: Preparation, progress: Progress = silent
) -> CalibrationInputs:
    """At most 256 samples for the inputs of a network, or one batch of it.

    source: a folder or `fashion-mnist[:FOLDER]`, for a network with one input, whose images are
    prepared as `how` says; arrays by the inputs' names, in a mapping or an .npz file, or one array
    for one input, also in a .npy file: values are taken as they are. ConfigError for anything else.
    """
    if not isinstance(source, str | Path):
        return _of_arrays(source, inputs, "the array", "an array")
    if Path(source).suffix in (".npy", ".npz") and folder_named_by(str(source)) is None:
        return _of_arrays(read_npy(source), inputs, str(source), str(source))
    if len(inputs) != 1:
        raise ConfigError(
            f"calibration: {source} holds images for one input, and the network has {len(inputs)}"
            f" ({_listed(inputs)});\ngive an .npz file with an array for each:"
            f" numpy.savez('x.npz', {', '.join(f'{info.name}=...' for info in inputs)})"
        )
    given = read_calibration(str(source), inputs[0], how, progress)
    assert given.images is not None
    batches = _batches([given.images], inputs)
    return CalibrationInputs(arrays=batches, label=given.label, skipped=given.skipped)


def _of_arrays(
    given: Any, inputs: Sequence[TensorInfo], name: str, label: str
) -> CalibrationInputs:
    if isinstance(given, Mapping):
        arrays, where = _by_name(given, inputs, name), "{} in " + name
        label = label if name == label else "arrays"
    elif len(inputs) == 1:
        arrays, where = [given], name
    else:
        raise ConfigError(
            f"calibration: {name} is for one input, and the network has {len(inputs)}"
            f" ({_listed(inputs)});\ngive arrays by their names:"
            f" numpy.savez('x.npz', {', '.join(f'{info.name}=...' for info in inputs)})"
        )
    pairs = zip(arrays, inputs, strict=True)
    checked = [_array(array, info, where.format(info.name)) for array, info in pairs]
    return CalibrationInputs(arrays=_batches(checked, inputs), label=label)


def _by_name(given: Mapping[Any, Any], inputs: Sequence[TensorInfo], name: str) -> list[Any]:
    """The arrays in the order of the inputs; one array for one input may have any name."""
    if len(given) == len(inputs) == 1:
        return list(given.values())
    names = [info.name for info in inputs]
    if set(given) != set(names):
        found = ", ".join(str(key)[:40] for key in list(given)[:8]) or "no arrays"
        raise ConfigError(
            f"calibration: {name} holds {found}; the network's inputs are {_listed(inputs)},"
            " and an array for each is needed"
        )
    return [given[key] for key in names]


def _listed(inputs: Sequence[TensorInfo]) -> str:
    shown = [f"{i.name} {i.dtype} {','.join(map(str, i.shape))}" for i in inputs[:8]]
    return "; ".join(shown) + (f" and {len(inputs) - 8} more" if len(inputs) > 8 else "")


def _array(value: Any, info: TensorInfo, name: str) -> Tensor:
    try:
        array = np.asarray(_plain(value) if isinstance(value, Tensor) else value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"calibration={type(value).__name__} holds no plain numbers ({first_line(error)});"
            f" accepted: {_ACCEPTED}"
        ) from error
    floats = info.dtype.startswith("float")
    if array.dtype.kind not in "fiub" or (array.ndim == 0 and info.shape):
        raise ConfigError(
            f"calibration: {name} holds {array.dtype} of shape {array.shape}; accepted: {_ACCEPTED}"
        )
    if info.shape and (array.shape[1:] != info.shape[1:] or not len(array)):
        raise ConfigError(
            f"calibration: {name} has the shape {array.shape}; the network takes {info.shape}, so"
            f" (images, {', '.join(map(str, info.shape[1:]))}) is needed"
        )
    if not floats and array.dtype != np.dtype(info.dtype):
        raise ConfigError(
            f"calibration: {name} is {array.dtype}, and the network takes {info.dtype};"
            f" convert it with x.astype('{info.dtype}')"
        )
    with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is refused
        array = np.array(array, info.dtype, order="C")
    if not np.isfinite(array).all():
        raise ConfigError(f"calibration: {name} holds values that are not finite in {info.dtype}")
    return torch.from_numpy(array)


def _plain(tensor: Tensor) -> Tensor:
    """The tensor in a type that NumPy has."""
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _batches(arrays: Sequence[Tensor], inputs: Sequence[TensorInfo]) -> tuple[Tensor, ...]:
    """The arrays as whole batches, evenly chosen, MAX_IMAGES samples or one batch; the first
    samples are repeated where they fill none. An input without axes has one value for all."""
    counted = [(x, info) for x, info in zip(arrays, inputs, strict=True) if info.shape]
    samples = {len(x) / info.shape[0] for x, info in counted}
    if len(samples) > 1:
        lengths = ", ".join(f"{info.name} {len(x)}" for x, info in counted[:8])
        raise ConfigError(
            f"calibration: the arrays hold samples for different numbers of batches ({lengths});"
            " as many are needed for each input"
        )
    step = -(-max(samples, default=1) * counted[0][1].shape[0] // MAX_IMAGES) if counted else 1
    return tuple(
        _whole(x, info.shape[0], max(1, int(step))) if info.shape else x
        for x, info in zip(arrays, inputs, strict=True)
    )


def _whole(x: Tensor, batch: int, step: int) -> Tensor:
    """Every `step`-th batch of x."""
    if len(x) < batch:
        return x.repeat(-(-batch // len(x)), *(1,) * (x.dim() - 1))[:batch]
    count = len(x) // batch
    batches = x[: count * batch].reshape(count, batch, *x.shape[1:])[::step]
    return batches.reshape(-1, *x.shape[1:])
