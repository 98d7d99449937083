"""Overlapping blocks of pixels added into an image: Col2Im in ONNX, fold in PyTorch."""

import math
from typing import Any

import numpy as np
from tvm import relax


def overlap_added(
    x: Any,
    shape: list[int],
    size: list[int],
    block: list[int],
    strides: list[int],
    pads: list[int],
    dilations: list[int],
) -> Any:
    """(N, C * block, positions), which is `shape`, to (N, C, *size): every column is added where
    its block was.

    pads: top, left, bottom, right. A transposed convolution with one weight a pixel of the block.
    """
    batch, rows, _ = shape
    channels = rows // math.prod(block)
    spans = [(k - 1) * d + 1 for k, d in zip(block, dilations, strict=True)]
    padded = [n + pads[i] + pads[i + 2] for i, n in enumerate(size)]
    count = [(n - span) // s + 1 for n, span, s in zip(padded, spans, strides, strict=True)]
    planes = relax.op.reshape(x, [batch * channels, math.prod(block), *count])
    weight = np.eye(math.prod(block), dtype=np.float32).reshape(-1, 1, *block)
    more = [
        n - (c - 1) * s - span for n, c, s, span in zip(padded, count, strides, spans, strict=True)
    ]
    image = relax.op.nn.conv2d_transpose(
        planes, relax.const(weight), strides=strides, dilation=dilations
    )
    image = relax.op.nn.pad(image, [0, 0, 0, 0, 0, more[0], 0, more[1]])
    inside = relax.op.strided_slice(image, [2, 3], pads[:2], [pads[0] + size[0], pads[1] + size[1]])
    return relax.op.reshape(inside, [batch, channels, *size])
