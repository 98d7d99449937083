"""Kernels are made for shapes that are known."""

from collections.abc import Sequence

import tvm
from tvm import relax

from subpc.errors import UnsupportedModelError
from subpc.passes.dataflow import Dataflow


def check_shapes(graph: Dataflow) -> None:
    """Raise UnsupportedModelError where the shape of a value is not known before it is computed."""
    dynamic = [var.name for var in graph.live() if not _static(var)]
    if dynamic:
        raise UnsupportedModelError(
            f"shapes that depend on data are not supported: {', '.join(dynamic[:5])}; export with"
            " fixed shapes"
        )


def _static(var: relax.Var) -> bool:
    types: Sequence[relax.Type] = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
    return all(isinstance(extent, tvm.tirx.IntImm) for t in types for extent in t.shape or ())
