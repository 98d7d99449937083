"""The engines of a comparison, each behind one call. Runs inside a worker process; imports only the
engine that is asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Call = Callable[[], list[Array]]

# Every engine gets the same thread count, float32 arithmetic wherever its file does not say codes,
# and one request at a time: latency, not throughput.


def _subpc(model: str, inputs: dict[str, Array], threads: int) -> Call:
    from subpc.runtime.model import load

    compiled = load(model, threads=threads)
    values = list(inputs.values())

    def call() -> list[Array]:
        outputs = compiled(*values)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    return call


def _onnxruntime(model: str, inputs: dict[str, Array], threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = dict(zip([i.name for i in session.get_inputs()], inputs.values(), strict=True))
    return lambda: list(session.run(None, feed))


def _openvino(model: str, inputs: dict[str, Array], threads: int) -> Call:
    import openvino

    # Without the precision hint OpenVINO computes in bfloat16 on CPUs that have it.
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    feed = list(inputs.values())

    def call() -> list[Array]:
        request.infer(feed, share_inputs=True)
        return [tensor.data for tensor in request.output_tensors]

    return call


def _torch(model: str, inputs: dict[str, Array], threads: int, *, compiled: bool = False) -> Call:
    import torch
    from torch.utils._pytree import tree_leaves

    torch.set_num_threads(threads)
    module: Any = torch.export.load(model).module()
    module = torch.compile(module) if compiled else module
    tensors = [torch.from_numpy(a) for a in inputs.values()]

    def call() -> list[Array]:
        with torch.inference_mode():
            outputs = module(*tensors)
        # Named and nested outputs in the order in which a compiled library gives them.
        return [o.numpy() for o in tree_leaves(outputs) if isinstance(o, torch.Tensor)]

    return call


def _torch_compile(model: str, inputs: dict[str, Array], threads: int) -> Call:
    return _torch(model, inputs, threads, compiled=True)


ENGINES: dict[str, Callable[[str, dict[str, Array], int], Call]] = {
    "subpc": _subpc,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "torch-compile": _torch_compile,
    "onnxruntime-int8": _onnxruntime,
    "openvino-int8": _openvino,
}
# Those that get the model quantized to 8 bits by their own tools (subpc/bench/quantize.py).
INT8 = ("onnxruntime-int8", "openvino-int8")


def load_inputs(path: str) -> dict[str, Array]:
    """The inputs that all engines get, {name: array of any shape}, in order."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
