"""What folding makes of a file's whole numbers: which constants are codes times scales, and what
the file calls them."""

import re
from collections.abc import Mapping

import numpy as np
import onnx

from subpc.frontend.from_onnx.graph import attributes_of
from subpc.frontend.weight_codes import WeightCodes, weight_codes

QUANTIZED = ("QuantizeLinear", "DequantizeLinear")
# ONNX's reference has quantization from this opset on; what it means has not changed.
_OPSET = 19
# What ONNX Runtime's quantizer and NNCF call the codes of conv1.weight.
_FORMS = (re.compile(r"(.+)_quantized"), re.compile(r"q_output_(.+)_\d+"))


def meaning_opset(node: onnx.NodeProto, opset: int) -> int:
    """The opset whose definition says what a node of `opset` means."""
    return max(opset, _OPSET) if node.op_type in QUANTIZED else opset


def check_blocks(node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> None:
    """ValueError for blocks of a (de)quantization that do not divide their axis among its scales:
    NumPy repeats each scale as often as the file says, and corrupts its memory where that is more
    than 64 bits hold."""
    attributes = attributes_of(node)
    size = attributes.get("block_size", 0)
    if node.op_type not in QUANTIZED or not size:
        return
    x, scale = (values[name] for name in node.input[:2])
    axis = int(attributes.get("axis", 1))
    if x.ndim != scale.ndim or not -x.ndim <= axis < x.ndim:
        raise ValueError(f"scales {list(scale.shape)} in blocks, for values {list(x.shape)}")
    extent, scales = x.shape[axis], scale.shape[axis]
    if not 0 < size <= extent or scales != -(-extent // size):
        raise ValueError(f"{scales} scales for {extent} values in blocks of {size}")


class ConstantCodes:
    """Kept while constants are computed, one node after the other.

    codes: by constant, for those of two or more axes that are codes times scales. sources: the
    constant of the file that a computed one holds the values of.
    """

    def __init__(self) -> None:
        self.codes: dict[str, WeightCodes] = {}
        self.sources: dict[str, str] = {}

    def note(self, node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> None:
        """Of a node whose result was just computed from constants."""
        given, made = (node.input[0], node.output[0]) if node.input else ("", "")
        turned = node.op_type == "Transpose" and given in self.sources
        if node.op_type not in QUANTIZED and not turned:
            return
        self.sources[made] = self.sources.get(given, given)
        if node.op_type == "DequantizeLinear":
            found = _of(node, constants)
            if found is not None:
                self.codes[made] = found
        elif turned and given in self.codes:
            axes = attributes_of(node).get("perm", range(constants[given].ndim)[::-1])
            self.codes[made] = self.codes[given].transposed(tuple(axes))

    def names(self) -> dict[str, str]:
        """What the file calls the values of each constant that is not in it."""
        return {made: _plain(source) for made, source in self.sources.items()}


def _plain(name: str) -> str:
    found = next((match for form in _FORMS if (match := form.fullmatch(name))), None)
    return found[1] if found else name


def _of(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> WeightCodes | None:
    stored, scale, *more = (constants[name] for name in node.input if name)
    attributes = attributes_of(node)
    whole = stored.dtype.kind in "iu" or str(stored.dtype) in ("int4", "uint4", "int2", "uint2")
    if not whole or stored.ndim < 2 or attributes.get("block_size", 0):
        return None
    zero = more[0] if more else 0
    return weight_codes(stored, scale, zero, int(attributes.get("axis", 1)))
