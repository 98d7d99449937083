"""Runs an ONNX model with another engine, and keeps what each layer computes: the values in between
become outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from subpc.frontend.from_onnx.network import OnnxNetwork
from subpc.frontend.trace import (
    ADD,
    AFFINE,
    CODES,
    LAYER,
    OTHER,
    ROUNDED,
    Trace,
    TracedGraph,
    chain,
    collect,
    unique_names,
)

_LAYERS = ("Conv", "Gemm", "MatMul")
_AFFINE = ("BatchNormalization", "Identity", "Dropout")
_ROUNDING = {"QuantizeLinear": CODES, "DequantizeLinear": ROUNDED}


class OnnxTracer:
    """A network that another engine runs."""

    def __init__(self, network: OnnxNetwork) -> None:
        """Read the chains behind its layers, and start an engine that returns what they compute."""
        self._network = network
        graph = TracedGraph[onnx.NodeProto](
            readers=lambda n: network.readers.get(n.output[0], []),
            shape=lambda n: network.shapes.get(n.output[0]),
            kind=self._kind,
        )
        nodes = [n for n in network.nodes if self._kind(n) == LAYER]
        layers = unique_names(
            network.names[node.input[1]].removesuffix(".weight") for node in nodes
        )
        self._chains = {name: chain(graph, node) for name, node in zip(layers, nodes, strict=True)}
        self._run = _engine(
            _with_outputs(
                network.model, [n.output[0] for nodes in self._chains.values() for n in nodes]
            )
        )

    def run(self, inputs: Sequence[np.ndarray]) -> Trace:
        """Outputs and layers' results for these inputs.

        inputs: arrays of the shapes that the network was read for, in its order.
        """
        values = self._run(
            dict(zip([value.name for value in self._network.inputs], inputs, strict=True))
        )
        pairs = {
            name: [(self._kind(n), values[n.output[0]]) for n in nodes]
            for name, nodes in self._chains.items()
        }
        return collect(pairs, [values[name] for name in self._network.outputs])

    def _kind(self, node: onnx.NodeProto) -> str:
        given = [name for name in node.input if name and name not in self._network.constants]
        if (
            node.op_type in _LAYERS
            and len(node.input) > 1
            and node.input[1] in self._network.constants
            and len(given) == 1
        ):
            return LAYER
        if node.op_type in _ROUNDING:
            return _ROUNDING[node.op_type]
        if node.op_type in _AFFINE or (
            node.op_type in ("Add", "Sub", "Mul", "Div") and len(given) == 1
        ):
            return AFFINE
        return ADD if node.op_type in ("Add", "Sum") and len(given) == 2 else OTHER


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy that returns these values too."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    known = {value.name for value in wider.graph.output}
    for name in dict.fromkeys(names):
        if name not in known:
            wider.graph.output.add().name = name
    return onnx.shape_inference.infer_shapes(wider)


def _engine(model: onnx.ModelProto) -> Any:
    """{name: input} -> {name: output}: ONNX Runtime where it is installed and takes the model, else
    ONNX's own reference, which is slow."""
    names = [value.name for value in model.graph.output]
    session = _runtime_session(model)
    if session is not None:
        return lambda feed: dict(zip(names, session.run(names, feed), strict=True))
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda feed: dict(zip(names, evaluator.run(names, feed), strict=True))


def _runtime_session(model: onnx.ModelProto) -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # such as padding that is wider than a dilated window's taps
        return None
