"""Files that were written for one batch size, taken for another where the batch is only written
down in reshapes."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from subpc.errors import ConfigError
from subpc.frontend.from_onnx.graph import user_inputs, value_shapes
from subpc.frontend.messages import first_line

Shapes = Sequence[tuple[int, ...]]


def declared_shapes(model: onnx.ModelProto) -> list[tuple[int, ...]] | None:
    """The inputs' shapes in the file; None where it leaves something open."""
    inputs = user_inputs(model.graph)
    known = value_shapes(model.graph)
    found = [known.get(value.name, ()) for value in inputs]
    return (
        found
        if all(value.name in known for value in inputs) and all(0 not in shape for shape in found)
        else None
    )


def for_batch(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """`model` with the batch of `shapes` in its reshapes, if that is all in which they differ from
    the file's; else itself.

    A reshape that keeps the batch in front does the same to each image of a larger batch.
    """
    declared = declared_shapes(model)
    if (
        not shapes
        or declared is None
        or not all(declared)
        or [s[1:] for s in declared] != [tuple(s[1:]) for s in shapes]
    ):
        return model
    old, new = {shape[0] for shape in declared}, {shape[0] for shape in shapes}
    if len(old) != 1 or len(new) != 1 or old == new:
        return model
    return _reshaped(model, old.pop(), new.pop())


def _reshaped(model: onnx.ModelProto, old: int, new: int) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    before = value_shapes(shape_inference.infer_shapes(model).graph)
    constants = {tensor.name: tensor for tensor in changed.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in changed.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    taken = {name for node in changed.graph.node for name in (*node.input, *node.output)}
    for node in changed.graph.node:
        if (
            node.op_type != "Reshape"
            or len(node.input) < 2
            or before.get(node.input[0], ())[:1] != (old,)
        ):
            continue
        tensor = constants.get(node.input[1])
        target = (
            numpy_helper.to_array(tensor).reshape(-1)
            if tensor is not None
            else np.zeros(0, np.int64)
        )
        if target.size and target[0] == old:
            name = _new_name(node.input[1], taken)
            changed.graph.initializer.append(
                numpy_helper.from_array(np.array([new, *target[1:]], np.int64), name)
            )
            node.input[1] = name
    return changed


def _new_name(name: str, taken: set[str]) -> str:
    """A name that nothing has yet."""
    while name in taken:
        name += "_batch"
    taken.add(name)
    return name


def says_what_is_fixed(error: ConfigError, model: onnx.ModelProto, shapes: Shapes) -> ConfigError:
    """`error` about shapes that the user gave; where the file fixes other ones, that is the
    reason."""
    declared = declared_shapes(model)
    if declared is None or not shapes or declared == [tuple(shape) for shape in shapes]:
        return error
    fixed, given = (
        " and ".join(",".join(map(str, shape)) for shape in each) for each in (declared, shapes)
    )
    reason = first_line(error).split(": ", 1)[-1]
    return ConfigError(
        f"The file fixes its input to {fixed}; it cannot take {given}: {reason}\nCompile it for"
        f" {fixed}, or export it with dynamic axes (dynamic_axes or dynamic_shapes of"
        " torch.onnx.export)."
    )
