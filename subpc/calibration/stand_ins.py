"""Images in the place of those that nobody gave."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from subpc.algorithms.images.random_images import random_shapes, smooth_noise
from subpc.calibration.channels import float_weight
from subpc.calibration.meanings import convolution
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of, shape_of
from subpc.passes.norm_statistics import Norm

# Of each kind, and the values of the largest tensor of all of them.
_COUNT, _VALUES = 16, 1 << 26
# Pixels have a smallest and a largest value; they lie about so many deviations from the mean.
_REACH = 2.3


def stand_ins(graph: Dataflow, norms: Mapping[str, Norm], seed: int = 0) -> Tensor:
    """Random inputs (p, ...) for a graph with one input (n, ...), p a multiple of n: shapes and
    noise where it is an image, else normal numbers.

    Mean and deviation are those that the batch norm behind the first convolution expects, else 0
    and 1.
    """
    shape = shape_of(graph.inputs[0])
    draw = torch.Generator().manual_seed(seed)
    count = _count(graph, shape[0])
    if len(shape) != 4:
        return torch.randn(2 * count, *shape[1:], generator=draw)
    _, channels, height, width = shape
    side = max(height, width)
    images = torch.cat(
        [random_shapes(count, channels, side, seed), smooth_noise(count, channels, side, draw)]
    )[:, :, :height, :width].clamp(-_REACH, _REACH)
    return _as_known(graph, norms, images)


def _count(graph: Dataflow, batch: int) -> int:
    largest = max(math.prod(shape_of(var)) for var in graph.live() if hasattr(var.ty, "shape"))
    count = min(_COUNT, max(1, _VALUES // (2 * largest)) * batch)
    return -(-count // batch) * batch


def _as_known(graph: Dataflow, norms: Mapping[str, Norm], images: Tensor) -> Tensor:
    """The images with the mean and the deviation that the first convolution's norm tells of."""
    for _, call in graph.calls(ops.CONV2D):
        a, weight = ops.attributes(call), float_weight(graph, call)
        norm, bias = norms.get(a["name"]), constant_of(graph.resolve(call.args[2]))
        first = graph.resolve(call.args[0]) == graph.inputs[0]
        if first and norm is not None and weight is not None and bias is not None:
            kernel = torch.from_numpy(np.ascontiguousarray(weight))
            y = convolution(images, kernel, a["strides"], a["padding"], a["dilation"], a["groups"])
            found = y.std((0, 2, 3)).numpy()
            live = (found > 0) & (norm.deviation > 0)
            if a["groups"] != 1 or not live.any():
                break
            scale = float(np.median(norm.deviation[live] / found[live]))
            sums = weight.reshape(*weight.shape[:2], -1).sum(2, dtype="float64")
            mean = np.linalg.lstsq(sums, norm.mean - bias, rcond=0.05)[0]
            return images * scale + torch.from_numpy(mean).float().reshape(1, -1, 1, 1)
    return images.contiguous()
