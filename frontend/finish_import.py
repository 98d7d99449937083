"""The last steps that both importers share: dead code and unused parameters go, and equal things
get one spelling.

The spellings that passes can rely on:
    global pool    R.nn.adaptive_avg_pool2d(x, output_size=[1, 1]), also for means over height and
                   width, then R.reshape
    padding        the padding=[top, left, bottom, right] of R.nn.conv2d, also where R.nn.pad stood
                   before it
"""

import contextlib
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from subpc.errors import UnsupportedModelError
from subpc.frontend.check_sizes import check_sizes
from subpc.frontend.messages import first_line
from subpc.frontend.safe_indices import rewritten, safe_indices

# Element types of inputs and outputs.
PASSED_ON = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")


def abandon(builder: relax.BlockBuilder | None) -> None:
    """End the block that an importer left open when it failed; TVM would warn about it on
    stderr."""
    if builder is not None:
        with contextlib.suppress(Exception):
            builder._end_block()


def prepare_module(module: tvm.IRModule, inputs: int) -> tuple[tvm.IRModule, list[str]]:
    """`module` ready for passes, and the names of the parameters that are left."""
    try:
        module = _lean(_normalised(safe_indices(_lean(module, inputs))), inputs)
    except Exception as error:
        raise UnsupportedModelError(
            f"The model cannot be brought into the form that is compiled: {first_line(error)}"
        ) from error
    _check_static(module)
    check_sizes(module["main"], inputs)
    _check_types(module["main"], inputs)
    return module, [var.name for var in module["main"].params[inputs:]]


def _check_static(module: tvm.IRModule) -> None:
    """Refuse what has as many elements as its input's values decide."""
    bindings = [binding for block in module["main"].body.blocks for binding in block.bindings]
    open_ended = [binding for binding in bindings if not is_static(binding.var.ty)]
    if open_ended:
        names = dict.fromkeys(
            str(getattr(getattr(b.value, "op", None), "name", "a constant")).removeprefix("relax.")
            for b in open_ended
        )
        raise UnsupportedModelError(
            "The shape of a result depends on the values in a tensor, at"
            f" {', '.join(list(names)[:3])}.\nShapes have to follow from the input's shape alone;"
            " replace these layers."
        )


def _check_types(main: relax.Function, inputs: int) -> None:
    """Refuse inputs and outputs of a type that a compiled model does not pass on."""
    results = (
        list(main.ret_ty.fields) if isinstance(main.ret_ty, relax.TupleType) else [main.ret_ty]
    )
    for what, types in (("Input", [var.ty for var in main.params[:inputs]]), ("Output", results)):
        for index, type_ in enumerate(types):
            name = str(type_.dtype) if isinstance(type_, relax.TensorType) else "not a tensor"
            if name not in PASSED_ON:
                raise UnsupportedModelError(
                    f"{what} {index} of the model is {name}; accepted: {', '.join(PASSED_ON)}."
                )


def is_static(type_: Any) -> bool:
    """Whether the shape of a tensor, or of all tensors in a tuple, is known."""
    if isinstance(type_, relax.TupleType):
        return all(is_static(field) for field in type_.fields)
    if not isinstance(type_, relax.TensorType):
        return True
    return isinstance(type_.shape, relax.ShapeExpr) and all(
        isinstance(extent, tvm.tirx.IntImm) for extent in type_.shape
    )


def _lean(module: tvm.IRModule, inputs: int) -> tvm.IRModule:
    """`module` without dead code, unused parameters and importer attributes."""
    module = relax.transform.DeadCodeElimination(["main"])(module)
    main = module["main"]
    used = {var.name for var in relax.analysis.free_vars(main.body)}
    params = [*main.params[:inputs], *(var for var in main.params[inputs:] if var.name in used)]
    attrs = tvm.ir.DictAttrs({"global_symbol": "main", "num_input": inputs})
    functions = dict(module.functions.items())  # an importer may have written loops of its own
    functions[module.get_global_var("main")] = relax.Function(
        params, main.body, main.ret_ty, main.is_pure, attrs
    )
    return tvm.IRModule(functions)


def _normalised(module: tvm.IRModule) -> tvm.IRModule:
    return rewritten(module, _OneSpelling(module))


@mutator
class _OneSpelling(PyExprMutator):  # type: ignore[misc]
    """Rewrites calls while the functions that produce their arguments can still be looked up."""

    def visit_call_(self, call: Any) -> Any:
        """One call, with its arguments already rewritten."""
        call = super().visit_call_(call)
        name = getattr(call.op, "name", "")
        if name == "relax.nn.conv2d":
            return self._padded(call)
        if name == "relax.concat":
            return self._without_empty(call)
        return self._global_pool(call) if name == "relax.mean" else call

    def _padded(self, call: Any) -> Any:
        """Zeros around the input are the convolution's own padding, which may differ from side to
        side."""
        pad = self._producer(call.args[0], "relax.nn.pad")
        if (
            pad is None
            or pad.attrs.pad_mode != "constant"
            or _fill(pad) != 0
            or call.attrs.data_layout != "NCHW"
        ):
            return call
        before_after = [int(n) for n in pad.attrs.pad_width]
        top, bottom, left, right = before_after[4:]
        if any(before_after[:4]) or min(before_after) < 0:
            return call
        own = [int(n) for n in call.attrs.padding]
        padding = [own[0] + top, own[1] + left, own[2] + bottom, own[3] + right]
        a = call.attrs
        return relax.op.nn.conv2d(
            pad.args[0],
            call.args[1],
            a.strides,
            padding,
            a.dilation,
            int(a.groups),
            out_dtype=a.out_dtype,
        )

    def _without_empty(self, call: Any) -> Any:
        """What has no elements adds nothing."""
        bound = (
            self.lookup_binding(call.args[0])
            if isinstance(call.args[0], relax.Var)
            else call.args[0]
        )
        fields = list(bound.fields) if isinstance(bound, relax.Tuple) else []
        full = [field for field in fields if not _is_empty(field.ty)]
        if not full or len(full) == len(fields):
            return call
        return full[0] if len(full) == 1 else relax.op.concat(full, int(call.attrs.axis))

    def _global_pool(self, call: Any) -> Any:
        x, axes = call.args[0], call.attrs.axis
        shape = [int(n) for n in x.ty.shape]
        if axes is None or len(shape) != 4 or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
            return call
        pooled = relax.op.nn.adaptive_avg_pool2d(x, (1, 1))
        return (
            pooled
            if call.attrs.keepdims
            else relax.op.reshape(self.builder_.emit(pooled), shape[:2])
        )

    def _producer(self, value: Any, name: str) -> Any:
        """The call to `name` that computed `value`, or None."""
        bound = self.lookup_binding(value) if isinstance(value, relax.Var) else None
        return (
            bound
            if isinstance(bound, relax.Call) and getattr(bound.op, "name", "") == name
            else None
        )


def _is_empty(type_: Any) -> bool:
    return any(isinstance(extent, tvm.tirx.IntImm) and int(extent) == 0 for extent in type_.shape)


def _fill(pad: Any) -> float:
    value = getattr(pad.attrs, "pad_value", 0.0)
    return float(getattr(value, "value", value))
