"""Half precision inside of a float32 model: its weights are float32 numbers, and everything is
computed in float32."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from subpc.errors import UnsupportedModelError
from subpc.frontend.messages import printable

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Attributes that name an element type.
_TYPES = ("to", "dtype", "output_dtype")


def widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without half precision: itself where there is none. Inputs keep their types, for
    which there are words elsewhere."""
    graph = model.graph
    if not any(tensor.data_type in _HALVES for tensor in _tensors(graph)) and not any(
        _named_types(graph)
    ):
        return model
    if any(value.type.tensor_type.elem_type in _HALVES for value in graph.input):
        return model
    for value in graph.output:
        if value.type.tensor_type.elem_type in _HALVES:
            raise UnsupportedModelError(
                f"Output {printable(value.name)!r} is in half precision; compiled models give"
                " float32.\nConvert the model with keep_io_types."
            )
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in _tensors(wide.graph):
        if tensor.data_type in _HALVES:
            tensor.CopyFrom(
                numpy_helper.from_array(
                    numpy_helper.to_array(tensor).astype(np.float32), tensor.name
                )
            )
    for attribute in _named_types(wide.graph):
        attribute.i = TensorProto.FLOAT
    del wide.graph.value_info[:]
    return wide


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _named_types(graph: onnx.GraphProto) -> Iterator[onnx.AttributeProto]:
    for node in graph.node:
        yield from (
            attribute
            for attribute in node.attribute
            if attribute.name in _TYPES and attribute.i in _HALVES
        )
