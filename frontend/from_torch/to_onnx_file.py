"""A PyTorch network written as an ONNX file."""

import warnings
from pathlib import Path

import torch
from torch import nn

# The last operator set that PyTorch's stable exporter writes for plain convolutional networks
# without surprises.
OPSET = 17


def export_onnx(module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    """Write `module`, which is in evaluation mode, as ONNX, for inputs of these shapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), dynamo=False, opset_version=OPSET)
