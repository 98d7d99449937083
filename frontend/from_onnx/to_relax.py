"""ONNX to Relax with TVM's importer, where passes would not recognise what it writes with
converters of our own."""

import contextlib
import io
import re
import warnings
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import helper
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from subpc.errors import SubpcError, UnsupportedModelError
from subpc.frontend.finish_import import abandon, is_static, prepare_module
from subpc.frontend.from_onnx.graph import NodeError, node_name, unsupported_use
from subpc.frontend.from_onnx.network import OnnxNetwork
from subpc.frontend.from_onnx.read import input_dtype
from subpc.frontend.from_onnx.relax_converters.table import OURS
from subpc.frontend.imported_model import ImportedModel, weight_warnings
from subpc.frontend.messages import first_line, printable
from subpc.frontend.trace import unique_names

# Element types that a constant can have.
_HELD = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)


def import_onnx(network: OnnxNetwork) -> ImportedModel:
    """The network in Relax; UnsupportedModelError that names the node that has no conversion."""
    importer = _Importer(network)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):  # the importer prints and warns as it goes
            warnings.simplefilter("ignore")
            module = importer.from_onnx(network.model.graph, network.opset)
        importer.check_types()
    except SubpcError:
        abandon(importer.bb)
        raise
    except Exception as error:
        abandon(importer.bb)
        raise importer.refusal(error) from error
    inputs = network.inputs
    module, names = prepare_module(module, len(inputs))
    sources = {name: importer.sources[name] for name in names}
    params = {name: network.constants[source] for name, source in sources.items()}
    param_names = {name: network.names[source] for name, source in sources.items()}
    return ImportedModel(
        module=module,
        input_names=tuple(value.name for value in inputs),
        input_shapes=tuple(network.shapes[value.name] for value in inputs),
        input_dtypes=tuple(input_dtype(value) for value in inputs),
        output_names=tuple(unique_names(network.outputs)),
        params=params,
        param_names=param_names,
        notes=weight_warnings(params, param_names),
        codes={
            name: network.codes.codes[source]
            for name, source in sources.items()
            if source in network.codes.codes
        },
    )


class _Importer(ONNXGraphImporter):  # type: ignore[misc]
    """TVM's importer with our converters first, and only float tensors (not scalars, axes or
    shapes) as parameters."""

    def __init__(self, network: OnnxNetwork) -> None:
        super().__init__(shape_dict={}, dtype_dict={}, keep_params_in_input=True)
        self.network = network
        self.sources: dict[str, str] = {}  # name of the variable -> name of the constant
        self.node = onnx.NodeProto()  # the one that is being converted

    def refusal(self, error: Exception) -> UnsupportedModelError:
        """What is said of an error while converting: our own words, or what the node is given, for
        others speak of their own insides."""
        if isinstance(error, NodeError):
            return UnsupportedModelError(
                f"Node {node_name(self.node)} ({self.node.op_type}) cannot be compiled:"
                f" {first_line(error)}."
            )
        return unsupported_use(self.node, self._types())

    def _types(self) -> dict[str, onnx.TypeProto]:
        graph = self.network.model.graph
        types = {
            value.name: value.type for part in (graph.input, graph.value_info) for value in part
        }
        return types | {
            t.name: helper.make_tensor_type_proto(t.data_type, list(t.dims))
            for t in graph.initializer
        }

    def check_types(self) -> None:
        """A converter that ignores an attribute often shows in the shape: UnsupportedModelError
        where it differs from ONNX's own."""
        for name, shape in self.network.shapes.items():
            value = self._nodes.get(name)
            if isinstance(value, relax.Var) and isinstance(value.ty, relax.TensorType):
                made = list(value.ty.shape)
                if (
                    all(isinstance(extent, tvm.tirx.IntImm) for extent in made)
                    and tuple(int(extent) for extent in made) != shape
                ):
                    raise UnsupportedModelError(
                        f"Value {printable(name)!r} of shape {list(shape)} would come out with"
                        f" shape {[int(extent) for extent in made]}.\nReplace the layer that"
                        " computes it before compiling."
                    )

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Nothing: operators are checked before, those that we convert and TVM does not
        included."""

    def _parse_graph_initializers(self, graph: onnx.GraphProto) -> None:
        for name, value in self.network.constants.items():
            if str(value.dtype) not in _HELD:
                raise UnsupportedModelError(
                    f"Constant {printable(name)!r} is {value.dtype}; accepted: {', '.join(_HELD)}."
                    " Store it dequantized."
                )
            if value.dtype != np.float32 or value.size <= 1:
                self._nodes[name] = relax.const(
                    value, str(value.dtype)
                )  # without a type, int64 becomes int32
                continue
            variable_name = self._name_supply.fresh_name("p_" + re.sub(r"\W", "_", name))
            variable = self._new_var(variable_name, shape=value.shape, dtype="float32")
            self._nodes[name] = variable
            self._params[variable_name] = (variable, value)
            self.sources[variable_name] = name

    def _parse_value_proto(self, value_proto: Any) -> Any:
        if isinstance(value_proto, onnx.NodeProto):
            self.node = value_proto
        return super()._parse_value_proto(value_proto)

    def _constant(self, value: Any) -> Any:
        source = self.sources.get(getattr(value, "name", ""))
        return value if source is None else relax.const(self.network.constants[source], "float32")

    def _convert_operator(
        self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int
    ) -> Any:
        if op_name in ("Resize", "Upsample"):  # its scales are floats, but no weights
            inputs = [self._constant(value) for value in inputs]
        convert = OURS.get(op_name)
        converted = convert(inputs, attrs, opset) if convert is not None else None
        if converted is None:
            converted = super()._convert_operator(op_name, inputs, attrs, opset)
        if not isinstance(converted, tvm.ir.Expr):
            return converted
        normal = self.bb.normalize(converted)
        if not is_static(normal.ty):
            raise UnsupportedModelError(
                f"The shape of what node {node_name(self.node)} ({op_name}) makes depends on the"
                " values in a tensor.\nShapes have to follow from the input's shape alone; replace"
                " this layer."
            )
        return normal
