"""Images in the place of those that nobody gave."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tvm import relax

from subpc.algorithms.images.random_images import random_shapes, smooth_noise
from subpc.calibration.channels import float_weight
from subpc.calibration.meanings import convolution
from subpc.images.input import is_channels_last
from subpc.library.report import TensorInfo
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, dtype_of, shape_of
from subpc.passes.norm_statistics import Norm
from subpc.runtime.random_inputs import random_inputs

# Of each kind, and the values of the largest tensor of all of them.
_COUNT, _VALUES = 16, 1 << 26
# Of each kind again: a file may ask for a batch of a million, whose images then repeat.
_DIFFERENT = 256
# Pixels have a smallest and a largest value; they lie about so many deviations from the mean.
_REACH = 2.3
# Pixels of no network are numbers so large, or so small; a norm that says so knows other weights.
_FARTHEST = 1e6
_BYTES = ("uint8", "int8")


def stand_ins(graph: Dataflow, norms: Mapping[str, Norm], seed: int = 0) -> tuple[Tensor, ...]:
    """For each input (n, ...) of a graph a random array (k n, ...) of its type: shapes and noise
    where it is an image of floats or bytes, else what `random_inputs` draws.

    Bytes fill their range. Mean and deviation of floats are those that the batch norm behind the
    first convolution expects, else 0 and 1.
    """
    infos = [
        TensorInfo(name=str(var.name), shape=shape_of(var), dtype=dtype_of(var))
        for var in graph.inputs
    ]
    batches = _batches(graph, next((info.shape[0] for info in infos if info.shape), 1))
    whole = [
        replace(i, shape=(batches * i.shape[0], *i.shape[1:])) if i.shape else i for i in infos
    ]
    arrays = [torch.from_numpy(array) for array in random_inputs(whole)]
    for index, (var, info) in enumerate(zip(graph.inputs, whole, strict=True)):
        if len(info.shape) == 4 and info.dtype in ("float32", *_BYTES):
            images = _drawn(info, seed + index)
            arrays[index] = (
                _as_bytes(images, info)
                if info.dtype in _BYTES
                else _as_known(graph, var, norms, images)
            )
    return tuple(arrays)


def _batches(graph: Dataflow, batch: int) -> int:
    """How many batches of the graph there are to be: of each kind of image the half."""
    largest = max(math.prod(shape_of(var)) for var in graph.live() if hasattr(var.ty, "shape"))
    count = min(_COUNT, max(1, _VALUES // (2 * largest)) * batch)
    return 2 * -(-count // batch)


def _drawn(info: TensorInfo, seed: int) -> Tensor:
    """Images (n, channels, height, width), the second half of them noise; channels last where the
    input has them there."""
    count, channels, height, width = info.shape
    last = is_channels_last(info)
    if last:
        channels, height, width = width, channels, height
    size, draw = (height, width), torch.Generator().manual_seed(seed)
    different = min(count // 2, _DIFFERENT)
    repeated = torch.arange(count // 2) % different
    images = torch.cat(
        [
            random_shapes(different, channels, size, seed)[repeated],
            smooth_noise(different, channels, size, draw)[repeated],
        ]
    ).clamp(-_REACH, _REACH)
    return images.permute(0, 2, 3, 1) if last else images


def _as_bytes(images: Tensor, info: TensorInfo) -> Tensor:
    """Numbers from -_REACH to _REACH as bytes from the smallest to the largest."""
    kind: torch.dtype = getattr(torch, info.dtype)
    bytes_ = ((images / _REACH + 1) * 127.5).round() + torch.iinfo(kind).min
    return bytes_.to(kind).contiguous()


def _as_known(graph: Dataflow, var: relax.Var, norms: Mapping[str, Norm], images: Tensor) -> Tensor:
    """The images for an input with the mean and the deviation that the norm of the first
    convolution that reads it tells of."""
    for _, call in graph.calls(ops.CONV2D):
        a, weight = ops.attributes(call), float_weight(graph, call)
        norm, bias = norms.get(a["name"]), constant_of(graph.resolve(call.args[2]))
        first = graph.resolve(call.args[0]) == var
        if first and norm is not None and weight is not None and bias is not None:
            kernel = torch.from_numpy(np.ascontiguousarray(weight))
            y = convolution(images, kernel, a["strides"], a["padding"], a["dilation"], a["groups"])
            found = y.std((0, 2, 3)).numpy()
            live = (found > 0) & (norm.deviation > 0)
            known = np.isfinite([norm.mean, norm.deviation, bias]).all()
            if a["groups"] != 1 or not live.any() or not known:
                break
            with np.errstate(over="ignore"):
                scale = float(np.median(norm.deviation[live] / found[live]))
            if not 1 / _FARTHEST < scale < _FARTHEST:
                break
            sums = weight.reshape(*weight.shape[:2], -1).sum(2, dtype="float64")
            mean = np.linalg.lstsq(sums, norm.mean - bias, rcond=0.05)[0]
            return images * scale + torch.from_numpy(mean).float().reshape(1, -1, 1, 1)
    return images.contiguous()
