"""The layers with weights that a network in a file may have. Their sizes are those of their
tensors, so that the two cannot differ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from subpc.algorithms.file_format.graph.options import Check, number, whole, wholes

Tensors = Mapping[str, torch.Tensor]
_PAIR, _PADS = wholes(1, counts=(2,)), wholes(0, counts=(2,))
_GROUPS = whole(1, 1 << 20)


@dataclass(frozen=True, kw_only=True)
class LayerKind:
    """build(tensors by their short names, **options) -> module, whose weights are empty; options:
    what checks each of them."""

    build: Callable[..., nn.Module]
    options: Mapping[str, Check]


def _conv(tensors: Tensors, *, stride: Any, padding: Any, dilation: Any, groups: int) -> nn.Module:
    out, inputs, *kernel = _weight(tensors, 4)
    if out % groups:
        raise ValueError(f"{out} filters in {groups} groups")
    options: dict[str, Any] = {
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
    }
    return nn.Conv2d(
        inputs * groups, out, _two(kernel), bias="bias" in tensors, device="meta", **options
    )


def _transposed(
    tensors: Tensors, *, stride: Any, padding: Any, dilation: Any, groups: int, output_padding: Any
) -> nn.Module:
    inputs, out, *kernel = _weight(tensors, 4)
    if inputs % groups:
        raise ValueError(f"{inputs} channels in {groups} groups")
    options: dict[str, Any] = {
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
    }
    options |= {
        "output_padding": tuple(output_padding),
        "bias": "bias" in tensors,
        "device": "meta",
    }
    return nn.ConvTranspose2d(inputs, out * groups, _two(kernel), **options)


def _batch_norm(tensors: Tensors, *, eps: float) -> nn.Module:
    if "running_mean" not in tensors or tensors["running_mean"].dim() != 1:
        raise ValueError("a batch norm needs running_mean with one dimension")
    return nn.BatchNorm2d(
        len(tensors["running_mean"]), eps=eps, affine="weight" in tensors, device="meta"
    )


def _linear(tensors: Tensors) -> nn.Module:
    out, inputs = _weight(tensors, 2)
    return nn.Linear(inputs, out, bias="bias" in tensors, device="meta")


def _layer_norm(tensors: Tensors, *, eps: float, shape: list[int]) -> nn.Module:
    affine, bias = "weight" in tensors, "bias" in tensors
    return nn.LayerNorm(shape, eps=eps, elementwise_affine=affine, bias=bias, device="meta")


def _group_norm(tensors: Tensors, *, eps: float, groups: int, channels: int) -> nn.Module:
    if channels % groups:
        raise ValueError(f"{channels} channels in {groups} groups")
    return nn.GroupNorm(groups, channels, eps=eps, affine="weight" in tensors, device="meta")


def _prelu(tensors: Tensors) -> nn.Module:
    return nn.PReLU(_weight(tensors, 1)[0], device="meta")


def _two(extents: list[int]) -> tuple[int, int]:
    height, width = extents
    return height, width


def _weight(tensors: Tensors, dims: int) -> list[int]:
    weight = tensors.get("weight")
    if weight is None or weight.dim() != dims or weight.numel() == 0:
        raise ValueError(f"it needs a weight of {dims} dimensions")
    return list(weight.shape)


_CONV = {"stride": _PAIR, "padding": _PADS, "dilation": _PAIR, "groups": _GROUPS}
KINDS: dict[str, LayerKind] = {
    "conv2d": LayerKind(build=_conv, options=_CONV),
    "conv_transpose2d": LayerKind(build=_transposed, options={**_CONV, "output_padding": _PADS}),
    "batch_norm": LayerKind(build=_batch_norm, options={"eps": number}),
    "linear": LayerKind(build=_linear, options={}),
    "layer_norm": LayerKind(
        build=_layer_norm, options={"eps": number, "shape": wholes(1, 1 << 20, counts=(1, 2, 3))}
    ),
    "group_norm": LayerKind(
        build=_group_norm, options={"eps": number, "groups": _GROUPS, "channels": whole(1, 1 << 20)}
    ),
    "prelu": LayerKind(build=_prelu, options={}),
}
