"""Indices that come from data stay inside the tensor they index: -1 is the last element, and
nothing outside is read or written.

PyTorch raises an error where an index is too large. Compiled code has nobody to tell: there the
index wraps around, so that a wrong input gives a wrong output and not a crash.
"""

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator


def safe_indices(module: tvm.IRModule) -> tvm.IRModule:
    """take, gather, scatter and their like with indices that are known to be in range, or are
    brought into it."""
    return rewritten(module, _Wrapping(module))


def rewritten(module: tvm.IRModule, rewriter: Any) -> tvm.IRModule:
    """The module with what `rewriter`, a PyExprMutator over it, makes of its main function."""
    main = rewriter.visit_expr(module["main"])
    rewriter.builder_.update_func(module.get_global_var("main"), main)
    return relax.transform.Normalize()(rewriter.builder_.get())


@mutator
class _Wrapping(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        """One call, with its arguments already rewritten."""
        call = super().visit_call_(call)
        name = getattr(call.op, "name", "")
        if name == "relax.take":
            return self._take(call)
        if name in ("relax.gather_elements", "relax.scatter_elements"):
            extent = int(call.args[0].ty.shape[int(call.attrs.axis)])
            return self._with(call, 1, self._wrapped(call.args[1], np.array(extent)))
        if name in ("relax.gather_nd", "relax.scatter_nd"):
            return self._with(call, 1, self._wrapped(call.args[1], _leading(call)))
        if name in ("relax.index_tensor", "relax.index_put"):
            return self._by_tensors(call)
        return call

    def _take(self, call: Any) -> Any:
        axis = call.attrs.axis
        shape = [int(extent) for extent in call.args[0].ty.shape]
        extent = int(np.prod(shape)) if axis is None else shape[int(axis)]
        index = call.args[1]
        if call.attrs.mode != "fast" or not isinstance(index.ty, relax.TensorType):
            return call
        # TVM warns about its mode "fast", which checks nothing, on stderr; passes/legalize_take.py
        # leaves out checks that are not needed.
        return relax.op.take(
            call.args[0], index, axis, mode="clip" if inside(index, np.array(extent)) else "wrap"
        )

    def _by_tensors(self, call: Any) -> Any:
        """Indices as a tuple of tensors, the first for the first axis."""
        indices = call.args[1]
        fields = list(indices.fields) if isinstance(indices, relax.Tuple) else self._fields(indices)
        extents = [int(extent) for extent in call.args[0].ty.shape]
        wrapped = [
            i if str(i.ty.dtype) == "bool" else self._wrapped(i, np.array(n))
            for i, n in zip(fields, extents, strict=False)
        ]
        return self._with(call, 1, relax.Tuple(wrapped))

    def _fields(self, value: Any) -> list[Any]:
        bound = self.lookup_binding(value)
        if isinstance(bound, relax.Tuple):
            return list(bound.fields)
        return [
            self.builder_.emit(relax.TupleGetItem(value, i)) for i in range(len(value.ty.fields))
        ]

    def _wrapped(self, index: Any, extent: np.ndarray) -> Any:
        """index modulo extent (which broadcasts against it)."""
        if inside(index, extent):
            return index
        return self.builder_.emit(
            relax.op.floor_mod(index, relax.const(extent, str(index.ty.dtype)))
        )

    @staticmethod
    def _with(call: Any, position: int, value: Any) -> Any:
        if call.args[position].same_as(value):
            return call
        arguments = [value if i == position else arg for i, arg in enumerate(call.args)]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)


def _leading(call: Any) -> np.ndarray:
    """The extents of the axes that the last axis of gather_nd's or scatter_nd's indices runs
    over."""
    batch = int(getattr(call.attrs, "batch_dims", 0))
    count = int(call.args[1].ty.shape[-1])
    return np.array([int(extent) for extent in call.args[0].ty.shape][batch : batch + count])


def inside(index: Any, extent: np.ndarray) -> bool:
    """Whether the index is a constant with nothing outside of [0, extent)."""
    if not isinstance(index, tvm.ir.GenericConst):
        return False
    value = index.value.numpy()
    return bool(((value >= 0) & (value < extent)).all())
