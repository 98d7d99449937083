"""Recognise what moves or pools whole channels: pooling, concatenation, pixel shuffles, reshapes
that move nothing."""

import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, dtype_of, rewrite, shape_of
from subpc.passes.recognise_interleaved import interleaved

_VIEWS = (
    "relax.reshape",
    "relax.flatten",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.nn.batch_flatten",
)
_SPREADS = ("relax.image.resize2d", "relax.nn.pixel_shuffle")
_POOLS = ("relax.nn.max_pool2d", "relax.nn.avg_pool2d")


def recognise_shapes(module: tvm.IRModule) -> tvm.IRModule:
    """max_pool2d, avg_pool2d, mean over the plane, concat of channels, nearest upsampling and
    reshape become our operators."""
    return rewrite(module, _recognise)


def _recognise(graph: Dataflow) -> None:
    for var, expr in list(graph.exprs.items()):
        if isinstance(expr, relax.TupleGetItem):
            part = _part_of_split(graph, var, expr)
            if part is not None:
                graph.rebind(var, part)
    others = ("relax.mean", "relax.nn.adaptive_avg_pool2d", "relax.concat", "relax.strided_slice")
    for var, call in graph.calls(*_VIEWS, *_POOLS, *_SPREADS, *others):
        if dtype_of(var) == "float32":
            converted = _convert(graph, var, call)
            if converted is not None:
                graph.rebind(var, converted)


def _convert(graph: Dataflow, var: relax.Var, call: relax.Call) -> relax.Call | None:
    name = call.op.name
    spread = interleaved(graph, var, call) if name in (*_SPREADS, "relax.reshape") else None
    if spread is not None:
        return spread
    if name in _VIEWS and isinstance(graph.resolve(call.args[0]), relax.Var):
        return ops.make(ops.VIEW, [call.args[0]], out_shape=list(shape_of(var)))
    if name == "relax.concat":
        return _concat(graph, var, call)
    if name in _POOLS:
        return _pool(var, call)
    if name == "relax.strided_slice":
        return _slice(graph, var, call)
    if name in ("relax.mean", "relax.nn.adaptive_avg_pool2d"):
        return _global_pool(var, call)
    return None


def _part_of_split(graph: Dataflow, var: relax.Var, item: relax.TupleGetItem) -> relax.Call | None:
    """One of the parts that the channels of an image are split into."""
    split = graph.call(item.tuple_value, "relax.split")
    if (
        split is None
        or int(split.attrs.axis) != 1
        or len(shape_of(var)) != 4
        or dtype_of(var) != "float32"
    ):
        return None
    if not isinstance(graph.resolve(split.args[0]), relax.Var):
        return None
    first = sum(
        int(field.shape[1]) for field in graph.resolve(item.tuple_value).ty.fields[: item.index]
    )
    return _channels(split.args[0], first, var)


def _slice(graph: Dataflow, var: relax.Var, call: relax.Call) -> relax.Call | None:
    """Some neighbouring channels of an image, as exporters write a split into halves."""
    x, shape = graph.resolve(call.args[0]), shape_of(call.args[0])
    axes, begin, _, *strides = (_numbers(arg) for arg in call.args[1:])
    plain = not strides or strides[0] in ([], [1])
    if axes not in ([1], [-3]) or len(shape) != 4 or not plain or not isinstance(x, relax.Var):
        return None
    first = begin[0] + shape[1] if begin[0] < 0 else begin[0]
    return _channels(x, first, var) if 0 <= first <= shape[1] - shape_of(var)[1] else None


def _numbers(value: relax.Expr) -> list[int]:
    return [int(field.value) for field in value.fields] if isinstance(value, relax.Tuple) else []


def _channels(x: relax.Expr, first: int, var: relax.Var) -> relax.Call:
    return ops.make(
        ops.CHANNELS, [x], first=first, out_shape=list(shape_of(var)), name=str(var.name)
    )


def _concat(graph: Dataflow, var: relax.Var, call: relax.Call) -> relax.Call | None:
    fields = list(graph.operands(call.args[0]))
    if isinstance(graph.expr(call.args[0]), relax.Tuple):
        fields = graph.operands(graph.expr(call.args[0]))
    if len(shape_of(var)) != 4 or call.attrs.axis is None or int(call.attrs.axis) != 1:
        return None
    if not all(isinstance(field, relax.Var) for field in fields):
        return None
    joined = _joined(graph, fields)
    fields = joined if len(joined) > 1 else fields
    return ops.make(ops.CONCAT, fields, out_shape=list(shape_of(var)), name=str(var.name))


def _joined(graph: Dataflow, fields: list[relax.Expr]) -> list[relax.Expr]:
    """The same tensors with neighbours that are neighbouring channels of one tensor in one piece:
    it can be written into the concatenation, and parts of it have to be copied."""
    found: list[relax.Expr] = []
    for field in fields:
        here = _part(graph, field)
        before = _part(graph, found[-1]) if found else None
        if here is None or before is None:
            found.append(field)
            continue
        first, count = ops.attributes(before)["first"], shape_of(found[-1])[1]
        x, a = graph.resolve(here.args[0]), ops.attributes(here)
        if graph.resolve(before.args[0]) != x or a["first"] != first + count:
            found.append(field)
            continue
        shape = (a["out_shape"][0], count + a["out_shape"][1], *a["out_shape"][2:])
        if shape == shape_of(x):
            found[-1] = x
            continue
        found[-1] = relax.Var(str(found[-1].name), relax.TensorType(shape, "float32"))
        graph.exprs[found[-1]] = ops.with_attributes(here, first=first, out_shape=list(shape))
    return found


def _part(graph: Dataflow, value: relax.Expr) -> relax.Call | None:
    """The call that takes neighbouring channels, in their order."""
    call = graph.call(value, ops.CHANNELS)
    return call if call is not None and "groups" not in ops.attributes(call) else None


def _pool(var: relax.Var, call: relax.Call) -> relax.Call | None:
    attrs = call.attrs
    if str(attrs.layout) != "NCHW" or len(shape_of(call.args[0])) != 4:
        return None
    size = [int(v) for v in attrs.pool_size]
    padding = [int(v) for v in attrs.padding]
    if "avg" in call.op.name and any(int(v) != 1 for v in attrs.dilation):
        return None  # rarer than a kernel of its own is worth
    if (
        size == list(shape_of(call.args[0])[2:])
        and not any(padding)
        and shape_of(var)[2:] == (1, 1)
        and "avg" in call.op.name
    ):
        return ops.make(
            ops.GLOBAL_POOL, [call.args[0]], out_shape=list(shape_of(var)), name=str(var.name)
        )
    return ops.make(
        ops.POOL2D,
        [call.args[0]],
        kind="max" if "max" in call.op.name else "avg",
        size=size,
        strides=[int(v) for v in attrs.strides],
        padding=padding
        if len(padding) == 4
        else (padding * 2 if len(padding) == 2 else padding * 4),
        dilation=[int(v) for v in attrs.dilation],
        count_include_pad=int(attrs.count_include_pad),
        out_shape=list(shape_of(var)),
        name=str(var.name),
    )


def _global_pool(var: relax.Var, call: relax.Call) -> relax.Call | None:
    source = shape_of(call.args[0])
    if len(source) != 4:
        return None
    if call.op.name == "relax.mean":
        axes = (
            sorted(int(axis) % 4 for axis in call.attrs.axis) if call.attrs.axis is not None else []
        )
        if axes != [2, 3]:
            return None
    elif shape_of(var)[2:] != (1, 1):
        return _adaptive_pool(var, call)
    return ops.make(
        ops.GLOBAL_POOL, [call.args[0]], out_shape=list(shape_of(var)), name=str(var.name)
    )


def _adaptive_pool(var: relax.Var, call: relax.Call) -> relax.Call | None:
    """Adaptive average pooling whose windows are all alike: none at all, or an ordinary average
    pooling."""
    (height, width), (rows, columns) = shape_of(call.args[0])[2:], shape_of(var)[2:]
    if (height, width) == (rows, columns):
        return ops.make(ops.VIEW, [call.args[0]], out_shape=list(shape_of(var)))
    if height % rows or width % columns:
        return None
    size = [height // rows, width // columns]
    return ops.make(
        ops.POOL2D,
        [call.args[0]],
        kind="avg",
        size=size,
        strides=size,
        padding=[0, 0, 0, 0],
        dilation=[1, 1],
        count_include_pad=0,
        out_shape=list(shape_of(var)),
        name=str(var.name),
    )
