"""Runs an ONNX model with another engine, and keeps what each layer computes: the values in between become outputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from subpc.frontend.from_onnx.graph import user_inputs, value_shapes
from subpc.frontend.from_onnx.read import read_onnx
from subpc.frontend.from_onnx.static import static_model
from subpc.frontend.from_onnx.to_relax import original_names
from subpc.frontend.trace import ADD, AFFINE, LAYER, OTHER, Graph, Trace, chain, collect, unique_names

_LAYERS = ("Conv", "Gemm", "MatMul")
_AFFINE = ("BatchNormalization", "Identity", "Dropout")


class OnnxTracer:
    """A model file for one input shape."""

    def __init__(self, path: Path, shapes: list[tuple[int, ...]]) -> None:
        """Read and check `path`, for inputs of these shapes; SubpcError where it cannot be imported."""
        model = static_model(read_onnx(path), shapes)
        self._constants = {t.name for t in model.graph.initializer} | {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
        self._inputs = [value.name for value in user_inputs(model.graph)]
        self._outputs = [value.name for value in model.graph.output]
        shapes_of, readers = value_shapes(model.graph), _readers(model.graph)
        graph = Graph[onnx.NodeProto](
            readers=lambda n: readers.get(n.output[0], []), shape=lambda n: shapes_of.get(n.output[0]), kind=self._kind
        )
        nodes, names = [n for n in model.graph.node if self._kind(n) == LAYER], original_names(model.graph)
        layers = unique_names(names[node.input[1]].removesuffix(".weight") for node in nodes)
        self._chains = {name: chain(graph, node) for name, node in zip(layers, nodes, strict=True)}
        self._run = _engine(_with_outputs(model, [n.output[0] for nodes in self._chains.values() for n in nodes]))

    def run(self, inputs: Sequence[np.ndarray]) -> Trace:
        """Outputs and layers' results for these inputs."""
        values = self._run(dict(zip(self._inputs, inputs, strict=True)))
        pairs = {name: [(self._kind(n), values[n.output[0]]) for n in nodes] for name, nodes in self._chains.items()}
        return collect(pairs, [values[name] for name in self._outputs])

    def _kind(self, node: onnx.NodeProto) -> str:
        given = [name for name in node.input if name and name not in self._constants]
        if node.op_type in _LAYERS and len(node.input) > 1 and node.input[1] in self._constants and len(given) == 1:
            return LAYER
        if node.op_type in _AFFINE or (node.op_type in ("Add", "Sub", "Mul", "Div") and len(given) == 1):
            return AFFINE
        return ADD if node.op_type in ("Add", "Sum") and len(given) == 2 else OTHER


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


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
    """{name: input} -> {name: output}: ONNX Runtime where it is installed and takes the model, else ONNX's own reference, which is slow."""
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
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # such as padding that is wider than a dilated window's taps
        return None
