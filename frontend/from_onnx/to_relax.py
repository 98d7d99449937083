"""ONNX to Relax with TVM's importer, where passes would not recognise what it writes with converters of our own."""

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import helper, numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from subpc.errors import SubpcError, UnsupportedModelError
from subpc.frontend.finish_import import abandon, is_static, prepare_module
from subpc.frontend.from_onnx.graph import NodeError, node_name, opset_of, unsupported_use, user_inputs, value_shapes
from subpc.frontend.from_onnx.read import input_dtype, read_onnx
from subpc.frontend.from_onnx.relax_converters.all import OURS
from subpc.frontend.from_onnx.static import static_model
from subpc.frontend.imported_model import ImportedModel, weight_warnings
from subpc.frontend.messages import first_line, printable
from subpc.frontend.trace import unique_names

# What the inputs of the operators with weights are for, where the weights have no names of their own.
_ROLES = {
    "Conv": ("input", "weight", "bias"),
    "ConvTranspose": ("input", "weight", "bias"),
    "Gemm": ("input", "weight", "bias"),
    "BatchNormalization": ("input", "weight", "bias", "running_mean", "running_var"),
}
# Names that exporters count up.
_MEANINGLESS = re.compile(r"(onnx::.*|\d+|.*Constant(_\d+)?(_output_0)?)")

# Element types that a constant can have.
_HELD = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")


def import_onnx(path: Path, shapes: list[list[tuple[int, ...]]]) -> list[ImportedModel]:
    """One imported model per entry of `shapes`; an empty entry stands for the shapes in the file."""
    model = read_onnx(path)
    return [_import(static_model(model, entry)) for entry in shapes]


def _import(model: onnx.ModelProto) -> ImportedModel:
    inputs = user_inputs(model.graph)
    importer = _Importer(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # the importer prints and warns as it goes
            warnings.simplefilter("ignore")
            module = importer.from_onnx(model.graph, opset_of(model))
        importer.check_types(value_shapes(model.graph))
    except SubpcError:
        abandon(importer.bb)
        raise
    except Exception as error:
        abandon(importer.bb)
        raise importer.refusal(error) from error
    module, names = prepare_module(module, len(inputs))
    originals = original_names(model.graph)
    params = {name: importer.values[name] for name in names}
    param_names = {name: originals[importer.sources[name]] for name in names}
    return ImportedModel(
        module=module,
        input_names=tuple(value.name for value in inputs),
        input_shapes=tuple(tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in inputs),
        input_dtypes=tuple(input_dtype(value) for value in inputs),
        output_names=tuple(unique_names(value.name for value in model.graph.output)),
        params=params,
        param_names=param_names,
        notes=weight_warnings(params, param_names),
    )


class _Importer(ONNXGraphImporter):  # type: ignore[misc]
    """TVM's importer with our converters first, and only float tensors (not scalars, axes or shapes) as parameters."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(shape_dict={}, dtype_dict={}, keep_params_in_input=True)
        self.values: dict[str, np.ndarray] = {}  # name of the variable -> value
        self.sources: dict[str, str] = {}  # name of the variable -> name of the initializer
        self.types = {value.name: value.type for part in (model.graph.input, model.graph.value_info) for value in part}
        self.types |= {
            tensor.name: helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)) for tensor in model.graph.initializer
        }
        self.node = onnx.NodeProto()  # the one that is being converted

    def refusal(self, error: Exception) -> UnsupportedModelError:
        """What is said of an error while converting: our own words, or what the node is given, for others speak of their own insides."""
        if isinstance(error, NodeError):
            return UnsupportedModelError(f"Node {node_name(self.node)} ({self.node.op_type}) cannot be compiled: {first_line(error)}.")
        return unsupported_use(self.node, self.types)

    def check_types(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """A converter that ignores an attribute often shows in the shape: UnsupportedModelError where it differs from ONNX's own."""
        for name, shape in shapes.items():
            value = self._nodes.get(name)
            if isinstance(value, relax.Var) and isinstance(value.ty, relax.TensorType):
                made = list(value.ty.shape)
                if all(isinstance(extent, tvm.tirx.IntImm) for extent in made) and tuple(int(extent) for extent in made) != shape:
                    raise UnsupportedModelError(
                        f"Value {printable(name)!r} of shape {list(shape)} would come out with shape {[int(extent) for extent in made]}.\n"
                        "Replace the layer that computes it before compiling."
                    )

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Nothing: operators are checked before, those that we convert and TVM does not included."""

    def _parse_graph_initializers(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            value = np.array(numpy_helper.to_array(tensor))  # writable, as TVM wants it
            if str(value.dtype) not in _HELD:
                raise UnsupportedModelError(
                    f"Constant {printable(tensor.name)!r} is {value.dtype}; accepted: {', '.join(_HELD)}. Store it dequantized."
                )
            if value.dtype != np.float32 or value.size <= 1:
                self._nodes[tensor.name] = relax.const(value, str(value.dtype))  # without a type, int64 becomes int32
                continue
            name = self._name_supply.fresh_name("p_" + re.sub(r"\W", "_", tensor.name))
            variable = self._new_var(name, shape=value.shape, dtype="float32")
            self._nodes[tensor.name] = variable
            self._params[name] = (variable, value)
            self.values[name], self.sources[name] = value, tensor.name

    def _parse_value_proto(self, value_proto: Any) -> Any:
        if isinstance(value_proto, onnx.NodeProto):
            self.node = value_proto
        return super()._parse_value_proto(value_proto)

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        if op_name in ("Resize", "Upsample"):  # its scales are floats, but no weights
            inputs = [relax.const(self.values[i.name], "float32") if getattr(i, "name", "") in self.values else i for i in inputs]
        convert = OURS.get(op_name)
        converted = convert(inputs, attrs, opset) if convert is not None else None
        if converted is None:
            converted = super()._convert_operator(op_name, inputs, attrs, opset)
        if not isinstance(converted, tvm.ir.Expr):
            return converted
        normal = self.bb.normalize(converted)
        if not is_static(normal.ty):
            raise UnsupportedModelError(
                f"The shape of what node {node_name(self.node)} ({op_name}) makes depends on the values in a tensor.\n"
                "Shapes have to follow from the input's shape alone; replace this layer."
            )
        return normal


def original_names(graph: onnx.GraphProto) -> dict[str, str]:
    """A name for every initializer: its own, or `<node>.weight` where an exporter merely counted."""
    names = {tensor.name: tensor.name for tensor in graph.initializer}
    for node in graph.node:
        roles = _ROLES.get(node.op_type, ())
        for index, source in enumerate(node.input):
            if source in names and names[source] == source and _MEANINGLESS.fullmatch(source):
                role = roles[index] if index < len(roles) else f"constant{index}"
                names[source] = f"{node_name(node)}.{role}"
    return names
