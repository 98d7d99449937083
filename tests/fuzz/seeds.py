"""Honest files of every kind that subpc reads, as the fuzz test starts from, and how each kind is
loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import subpc
from subpc.algorithms.file_format.compressed_file import CompressedFile, save_compressed
from subpc.algorithms.numerics.quantizers import quantize_uniform
from subpc.calibration.given import calibration_inputs
from subpc.compiler.compile_model import rewritten
from subpc.frontend.architectures.small_nets import build
from subpc.frontend.import_model import import_model
from subpc.frontend.load_network import load_network
from subpc.images.prepare import Preparation, read_image
from subpc.library.report import TensorInfo
from subpc.machine.target import parse_target
from subpc.runtime.arrays import read_npy
from subpc.tuned_schedules import database as tuning_db
from subpc.tuned_schedules.record import Machine, Trial, Verdict
from tests.frontend.small_model import ARCH, SHAPE, WRITERS, Small, save_open

OPTIONS = {"num_classes": 7, "in_channels": 3, "width": 4}


def write_seeds(folder: Path) -> dict[str, list[str]]:
    """{kind: names of honest files in `folder`}."""
    torch.manual_seed(0)
    model = Small(10).eval()
    for name, write in WRITERS.items():
        write(model, folder / name)
    save_open(folder / "open.pt2")
    _write_compressed(folder)
    _write_onnx(folder / "m.onnx")
    _write_quantized(folder / "pairs.onnx", folder / "codes.onnx")
    _write_arrays(folder)
    subpc.compile(model, torch.rand(SHAPE), threads=1, output=folder / "m.so")
    _write_database(folder / "m.jsonl")
    return {
        "pt2": ["program.pt2", "open.pt2"],
        "torchscript": ["script.pt", "trace.pt"],
        "state dict": ["state.pt", "legacy.pth", "checkpoint.pth"],
        "safetensors": ["state.safetensors"],
        "compressed .pt": ["compressed.pt"],
        "compressed .safetensors": ["compressed.safetensors"],
        "onnx": ["m.onnx", "pairs.onnx", "codes.onnx"],
        "int8": ["compressed.safetensors", "compressed.pt", "pairs.onnx"],
        "calibration": ["m.npy"],
        "library": ["m.so"],
        "npy": ["m.npy", "m.npz"],
        "image": ["m.png", "m.jpg", "m.gif"],
        "tuning database": ["m.jsonl"],
    }


def _write_compressed(folder: Path) -> None:
    state = build("resnet20", **OPTIONS).state_dict()
    packed = {"conv1": quantize_uniform(state["conv1.weight"], 4)}
    file = CompressedFile(
        arch="subpc:resnet20",
        arch_options=OPTIONS,
        state_dict=state,
        input_shape=(1, 3, 16, 16),
        packed=packed,
    )
    save_compressed(folder / "compressed.pt", file)
    save_compressed(folder / "compressed.safetensors", file)


def _write_onnx(path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)),
        "b": rng.standard_normal(4),
        "f": rng.standard_normal((4, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["l"]),
        helper.make_node("Gemm", ["l", "f"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", SHAPE), ("y", (1, 5)))
    ]
    tensors = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


def _write_quantized(pairs: Path, codes: Path) -> None:
    """A convolution between pairs of quantize and dequantize, and one that computes with codes."""
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "s": np.float32(0.1),
        "z": np.uint8(100),
        "w": rng.integers(-99, 99, (4, 3, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.01, 0.1, 4).astype(np.float32),
        "wz": np.zeros(4, np.int8),
        "b": rng.integers(-99, 99, 4).astype(np.int32),
    }
    first = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    last = helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"])
    of_pairs = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"], axis=0),
        helper.make_node("Conv", ["d", "v"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["r"]),
    ]
    operands = ["q", "s", "z", "w", "ws", "wz", "s", "z", "b"]
    of_codes = [
        helper.make_node("QLinearConv", operands, ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "QLinearAdd", ["c", "s", "z", "c", "s", "z", "s", "z"], ["r"], domain="com.microsoft"
        ),
    ]
    shapes = (("x", SHAPE), ("y", (1, 4, *SHAPE[2:])))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    for path, middle in ((pairs, of_pairs), (codes, of_codes)):
        graph = helper.make_graph([first, *middle, last], "g", [x], [y], tensors)
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def _write_arrays(folder: Path) -> None:
    array = np.arange(192, dtype=np.float32).reshape(SHAPE)
    np.save(folder / "m.npy", array)
    np.savez(folder / "m.npz", x=array, y=array)
    image = Image.fromarray((np.arange(768) % 251).astype(np.uint8).reshape(16, 16, 3))
    for suffix in ("png", "jpg", "gif"):
        image.save(folder / f"m.{suffix}")


def _write_database(path: Path) -> None:
    machine = Machine(cpu="x", target="llvm", threads=1, subpc="1", tvm="1")
    for ratio in (0.5, 1.5):
        tuning_db.append(
            path,
            Trial(workload={"kind": "conv"}, choice={"a": 1}, machine=machine, ratio=ratio),
        )
    tuning_db.append(
        path,
        Verdict(network="n", machine=machine, schedules={"k": {"a": 1}}, speedup=1.5),
    )


def _model(path: Path) -> None:
    import_model(path, shapes=[SHAPE], arch=ARCH)


def _integers(path: Path) -> None:
    rewritten(
        path, None, isa=parse_target("llvm -mcpu=cascadelake").isa, sparse="auto", precision="int8"
    )


def _calibration(path: Path) -> None:
    calibration_inputs(path, [TensorInfo(name="x", shape=SHAPE)], Preparation())


LOADERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(("pt2", "torchscript", "state dict", "safetensors", "onnx"), _model),
    **dict.fromkeys(("compressed .pt", "compressed .safetensors"), load_network),
    "int8": _integers,
    "calibration": _calibration,
    "library": lambda path: subpc.load(path, threads=1),
    "npy": read_npy,
    "image": lambda path: read_image(path, Preparation(size=8)),
    "tuning database": tuning_db.read,
}
