"""A float32 ONNX file quantized to 8 bits as other engines' own tools do it. Runs in a process of
its own: what these packages import, print and keep in memory is theirs alone."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from subpc.bench.engines import ENGINES, Array, load_inputs
from subpc.bench.worker import failure_of, open_answers, send

# Instructions that add four products of bytes without an overflow; elsewhere ONNX Runtime's weights
# keep to 7 bits.
_WIDE_SUMS = {"avx512_vnni", "avx_vnni"}
_QUANTIZED_OPERATORS = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"}
# Of each kind of codes that ONNX Runtime offers, to take the faster.
_WARMUP, _RUNS = 3, 9

Samples = Sequence[tuple[Array, ...]]


def main() -> None:
    """Quantize one file, and answer where the result is and what is to be said of it."""
    answers = open_answers()
    spec = json.loads(sys.stdin.readline())
    try:
        send(answers, _quantize(spec))
    except Exception as error:
        send(answers, {"failure": failure_of(error)})


def _quantize(spec: dict[str, Any]) -> dict[str, str]:
    model, output = Path(spec["model"]), Path(spec["output"])
    if _is_quantized(model):
        return {"model": str(model), "detail": "as the file is"}
    arrays = load_inputs(spec["calibration"]).values()
    samples = list(zip(*arrays, strict=True))
    file, detail = QUANTIZERS[spec["engine"]](model, samples, output, spec["threads"])
    return {"model": str(file), "detail": detail}


def _is_quantized(model: Path) -> bool:
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    return any(node.op_type in _QUANTIZED_OPERATORS for node in graph.node)


def _with_nncf(model: Path, samples: Samples, output: Path, threads: int) -> tuple[Path, str]:
    import nncf
    import openvino

    quantized = nncf.quantize(
        openvino.Core().read_model(model),
        nncf.Dataset(samples),
        subset_size=len(samples),
        target_device=nncf.TargetDevice.CPU,
    )
    file = output.with_suffix(".xml")
    openvino.save_model(quantized, file, compress_to_fp16=False)
    return file, f"nncf {nncf.__version__}"


def _with_onnxruntime(
    model: Path, samples: Samples, output: Path, threads: int
) -> tuple[Path, str]:
    """With unsigned and with signed codes of activations, whichever this CPU computes faster."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from subpc.machine.cpu import cpu_features

    prepared = output.with_name(f"{output.name}-prepared.onnx")
    # All sizes are known, so that ONNX's own inference of shapes is enough.
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    timed = []
    for name, codes in (("U8S8", QuantType.QUInt8), ("S8S8", QuantType.QInt8)):
        file = output.with_name(f"{output.name}-{name}.onnx")
        quantize_static(
            prepared,
            file,
            _Reader(prepared, samples),
            per_channel=True,
            reduce_range=not _WIDE_SUMS & cpu_features(),
            activation_type=codes,
            weight_type=QuantType.QInt8,
        )
        timed.append((_milliseconds(file, samples[0], threads), file, name))
    _, file, name = min(timed)
    return file, name


class _Reader:
    """The samples as ONNX Runtime's calibration asks for them: one feed after the other, then
    None."""

    def __init__(self, model: Path, samples: Samples) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        self._feeds = (dict(zip(names, sample, strict=True)) for sample in samples)

    def get_next(self) -> dict[str, Array] | None:
        """The next feed, {input name: array}."""
        return next(self._feeds, None)


def _milliseconds(file: Path, sample: tuple[Array, ...], threads: int) -> float:
    from subpc.machine.timing import measure

    inputs = {str(index): array for index, array in enumerate(sample)}
    call = ENGINES["onnxruntime"](str(file), inputs, threads)
    return measure(call, runs=_RUNS, warmup=_WARMUP).p50


# (float32 file, samples, path of the result without suffix, threads) -> (file, what to say of it).
QUANTIZERS: dict[str, Callable[[Path, Samples, Path, int], tuple[Path, str]]] = {
    "onnxruntime-int8": _with_onnxruntime,
    "openvino-int8": _with_nncf,
}
