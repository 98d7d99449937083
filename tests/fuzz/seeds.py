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
from subpc.frontend.architectures.small_nets import build
from subpc.frontend.import_model import import_model
from subpc.frontend.load_network import load_network
from subpc.images.prepare import Preparation, read_image
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
        "onnx": ["m.onnx"],
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


LOADERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(("pt2", "torchscript", "state dict", "safetensors", "onnx"), _model),
    **dict.fromkeys(("compressed .pt", "compressed .safetensors"), load_network),
    "library": lambda path: subpc.load(path, threads=1),
    "npy": read_npy,
    "image": lambda path: read_image(path, Preparation(size=8)),
    "tuning database": tuning_db.read,
}
