"""Tensors that a network of plain numbers cannot hold, and what is said about them."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from subpc.errors import ModelFileError

PLAIN_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_MAX_EXPANDED_BYTES = 64 << 20


def _cut(name: str) -> str:
    """A name from a file, fit for a line of a terminal."""
    return ascii(name)[1:-1][:80]


def strange_kind(tensor: torch.Tensor) -> str:
    """What makes a tensor, of any shape, more than an array of numbers; empty for an ordinary
    one."""
    if isinstance(tensor, FakeTensor):
        return "fake, without values"
    if tensor.is_nested:
        return "nested"
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.layout != torch.strided:
        return f"stored as {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_quantized:
        return f"quantized to {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.is_floating_point() and tensor.dtype not in PLAIN_FLOATS:
        return str(tensor.dtype).removeprefix("torch.")
    return ""


def held_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters, buffers and tensors that are plain attributes, each with its name."""
    plain = [
        (f"{name}.{attribute}".removeprefix("."), value)
        for name, part in module.named_modules()
        for attribute, value in vars(part).items()
        if isinstance(value, torch.Tensor)
    ]
    return [*module.named_parameters(), *module.named_buffers(), *plain]


def strange_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The first few of {name: tensor of any shape} that are strange, with their kinds; empty where
    all are ordinary."""
    found = [
        f"{_cut(name)} is {kind}" for name, tensor in tensors if (kind := strange_kind(tensor))
    ]
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def check_state(state: Mapping[str, torch.Tensor], file: str) -> None:
    """ModelFileError where `state` has tensors of another kind, or larger ones than the file holds.

    state: {name: tensor of any shape}.
    """
    strange = strange_tensors(state.items())
    if strange:
        raise ModelFileError(
            f"{file} has weights that are no plain floats: {strange}.\nSave the network as it was"
            " before quantization or conversion, or with .dequantize() or .to_dense() of these"
            " weights."
        )
    expanded = sum(
        max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())
        for tensor in state.values()
    )
    if expanded > _MAX_EXPANDED_BYTES:
        raise ModelFileError(
            f"{file}: its tensors are larger than what the file holds of them; save copies of them,"
            " not expanded views."
        )
