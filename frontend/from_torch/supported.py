"""Which torch operators reach TVM, and how: all that is not known, and the importer itself."""

from collections.abc import Callable
from typing import Any

import torch
import tvm
from torch import fx
from torch.export import ExportedProgram
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from subpc.frontend.from_torch import quantized_converters as torch_quantized
from subpc.frontend.from_torch import relax_converters as torch_convert
from subpc.frontend.from_torch import relax_move_converters as torch_moves
from subpc.frontend.from_torch import relax_resize_converters as torch_resizes
from subpc.frontend.from_torch import relax_type_converters as torch_types
from subpc.frontend.from_torch.nodes import layer_name
from subpc.frontend.from_torch.relax_converters import Converter
from subpc.frontend.messages import describe_unsupported

OURS: dict[str, Converter] = {
    **torch_convert.OURS,
    **torch_moves.OURS,
    **torch_quantized.OURS,
    **torch_resizes.OURS,
    **torch_types.OURS,
}

# TVM's importer takes these, but has no code for them on a CPU (the first lines), or puts the input
# or zeros in place of random numbers.
_REFUSED = frozenset(
    {
        *("topk.default", "sort.default", "argsort.default"),
        *(
            "masked_select.default",
            "sinh.default",
            "bucketize.Tensor",
            "scatter.src",
            "scatter.value",
            "index_put.default",
        ),
        *("bernoulli.p", "exponential.default", "randn.default", "randn_like.default"),
    }
)
# Poolings whose second result, where the maximum was, is not computed.
_WITH_INDICES = frozenset(
    {
        "max_pool2d_with_indices.default",
        "max_pool3d_with_indices.default",
        "adaptive_max_pool2d.default",
    }
)


def unsupported_operators(program: ExportedProgram) -> str:
    """A message that names every operator without a conversion and the layers that use it; empty
    where there is none."""
    known = ExportedProgramImporter().create_convert_map().keys() | OURS.keys()
    missing: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = node.target.__name__
        if name not in known or name in _REFUSED:
            missing.setdefault(str(node.target), []).append(layer_name(node))
        elif name in _WITH_INDICES and any(user.args[1] == 1 for user in node.users):
            missing.setdefault(f"the indices of {node.target}", []).append(layer_name(node))
    return describe_unsupported(missing)


class Importer(ExportedProgramImporter):  # type: ignore[misc]
    """TVM's importer with our converters first; `at` says what it is converting. theirs: TVM's
    converters by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.at = "its inputs"
        self.theirs: dict[str, Callable[[fx.Node], Any]] = self.create_convert_map()
        self.convert_map = {name: self._noting(convert) for name, convert in self.theirs.items()}
        self.convert_map |= {
            name: self._noting(self._bound(convert)) for name, convert in OURS.items()
        }

    def _noting(self, convert: Callable[[fx.Node], Any]) -> Callable[[fx.Node], Any]:
        def noted(node: fx.Node) -> Any:
            self.at = f"{node.target} in {layer_name(node)}"
            result = convert(node)
            _check_type(result, node.meta.get("val"))
            return result

        return noted

    def _bound(self, convert: Converter) -> Callable[[fx.Node], Any]:
        return lambda node: convert(node, self)


def _check_type(result: Any, expected: Any) -> None:
    """A converter that ignores an argument often shows in the shape: better no library than one
    that is wrong."""
    if (
        isinstance(expected, torch.Tensor)
        and isinstance(result, relax.Expr)
        and isinstance(result.ty, relax.TensorType)
    ):
        if not all(isinstance(extent, tvm.tirx.IntImm) for extent in result.ty.shape):
            return
        shape, right = [int(extent) for extent in result.ty.shape], list(expected.shape)
        dtype, right_dtype = str(result.ty.dtype), str(expected.dtype).removeprefix("torch.")
        if right_dtype == "bfloat16":
            raise ValueError(
                "values in bfloat16 are not rounded as PyTorch rounds them; use float32"
            )
        if (shape, dtype) != (right, right_dtype):
            raise ValueError(f"TVM makes {dtype} {shape} of it, PyTorch {right_dtype} {right}")
