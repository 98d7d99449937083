"""Converters for torch's operators on codes, as PT2E writes them."""

from typing import Any

import torch
from torch import fx
from tvm import relax

from subpc.frontend.from_torch.nodes import arguments
from subpc.frontend.from_torch.quantized import NAMESPACE

_CODES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


def _quantize(node: fx.Node, importer: Any) -> Any:
    """Where fewer codes are used than the type has, the values are kept within theirs first."""
    a, emit = _arguments(node), importer.block_builder.emit
    x, scale, zero = importer.env[a["input"]], float(a["scale"]), int(a["zero_point"])
    used = a["quant_min"], a["quant_max"]
    if used != _CODES[a["dtype"]]:
        x = emit(relax.op.clip(x, *((code - zero) * scale for code in used)))
    return emit(relax.op.quantize(x, *_quantization(a), axis=0, out_dtype=_name(a["dtype"])))


def _dequantize(node: fx.Node, importer: Any) -> Any:
    a = _arguments(node)
    if a["out_dtype"] not in (None, torch.float32):
        raise ValueError(f"{a['out_dtype']} of codes; accepted: torch.float32")
    codes = importer.env[a["input"]]
    return importer.block_builder.emit(relax.op.dequantize(codes, *_quantization(a), axis=0))


def _arguments(node: fx.Node) -> dict[str, Any]:
    if getattr(node.target, "namespace", "") != NAMESPACE:
        raise ValueError("tensors of PyTorch's quantized types; export the model with PT2E")
    a = arguments(node)
    if a["dtype"] not in _CODES:
        raise ValueError(f"codes of {a['dtype']}; accepted: torch.uint8 and torch.int8")
    return a


def _quantization(a: dict[str, Any]) -> tuple[Any, Any]:
    scale, zero = relax.const(float(a["scale"]), "float32"), int(a["zero_point"])
    return scale, relax.const(zero, _name(a["dtype"]))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


OURS = {
    "dequantize_per_tensor.default": _dequantize,
    "quantize_per_tensor.default": _quantize,
}
