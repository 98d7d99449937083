"""A small network for the command line, how a command is called, and what a damaged library is told
by."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from subpc.cli.main import run

OLD = b"a library that somebody still needs"
SHAPE = "1,3,8,8"
RESNET = "subpc:resnet20"
Capture = pytest.CaptureFixture[str]


class Net(nn.Module):
    """A convolution and a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


def net() -> Net:
    """What --arch names."""
    torch.manual_seed(0)
    return Net().eval()


def noisy() -> Net:
    """The same, from a library that has something to say to its own authors."""
    for category in (UserWarning, FutureWarning, DeprecationWarning, RuntimeWarning):
        warnings.warn("tensors will be called something else", category, stacklevel=2)
    return net()


ARCH = f"{__name__}:net"
NOISY = f"{__name__}:noisy"


def onnx_net(nodes: list[onnx.NodeProto], weight: np.ndarray, opset: int = 17) -> bytes:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        ).SerializeToString()
    )


def call(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line."""
    code = run([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


CONV = helper.make_node("Conv", ["x", "w"], ["y"], name="stem")
WEIGHT = np.ones((4, 3, 3, 3), np.float32)
