"""Give every operator that no kernel family of ours takes a TIR function from TVM's operator
library, fused with its neighbours."""

import tvm
from tvm import relax

from subpc.errors import UnsupportedModelError
from subpc.passes import ops
from subpc.passes.legalize_positions import POSITIONS
from subpc.passes.legalize_precise import PRECISE
from subpc.passes.legalize_quantized import QUANTIZED
from subpc.passes.legalize_take import PICKING
from subpc.passes.other_layers import LAYERS, carry_names, legalize_layer


def legalize_rest(module: tvm.IRModule, *, codes: bool = False) -> tvm.IRModule:
    """LegalizeOps, FuseOps, FuseTIR. codes: roundings to codes stay, for what computes with them;
    else they are computed in floats.

    Raises:
        UnsupportedModelError: all operators that stay without an implementation.
    """
    rounding = {} if codes else QUANTIZED
    module = tvm.transform.Sequential(
        [
            relax.transform.LegalizeOps(
                {**PRECISE, **POSITIONS, **PICKING, **rounding, ops.OTHER_LAYER: legalize_layer}
            ),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
        ]
    )(module)
    names = carry_names(module)
    module = tvm.transform.Sequential(
        [relax.transform.FuseTIR(), relax.transform.DeadCodeElimination(["main"])]
    )(module)
    for variable, function in list(module.functions.items()):
        if variable.name_hint in names:
            module.update_func(variable, function.with_attr(LAYERS, names[variable.name_hint]))
    missing = sorted(_unlowered(module["main"]))
    if missing:
        raise UnsupportedModelError(
            f"No kernel for: {', '.join(missing)}. Remove these layers from the model or replace"
            " them by supported ones."
        )
    return module


def _unlowered(function: relax.Function) -> list[str]:
    known = {*ops.ALL, ops.FAKE_QUANTIZE, ops.DEQUANTIZE, "relax.call_tir"}
    found = []
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and not (
                isinstance(value.op, tvm.ir.Op) and value.op.name in known
            ):
                found.append(f"{getattr(value.op, 'name', value.op)} ({binding.var.name})")
    return found
