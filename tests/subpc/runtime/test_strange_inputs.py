"""What is no dense tensor of a known type, wherever a user can put it: one or two lines, and no
exception of another library."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import subpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.cli.main import run
from subpc.errors import ConfigError, UnsupportedModelError

X = torch.rand(1, 3, 8, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()
    ).eval()


def strange(kind: str) -> Any:
    with warnings.catch_warnings(), FakeTensorMode() as mode:
        warnings.simplefilter("ignore")
        fake = mode.from_tensor(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "sparse": X.to_sparse(),
            "fake": fake,
            "meta": X.to("meta"),
            "nested": torch.nested.nested_tensor([X[0], X[0]]),
            "jagged": torch.nested.nested_tensor([X[0], X[0]], layout=torch.jagged),
            "mkldnn": X.to_mkldnn(),
            "quantized": torch.quantize_per_tensor(X, 0.1, 0, torch.quint8),
            "float8": X.to(torch.float8_e4m3fn),
            "complex": X.to(torch.complex64),
            "float64": np.zeros(X.shape),
            "objects": np.array([object()]),
            "a number": 3.0,
            "text": "abc",
            "list of lists": [[X]],
            "nothing": [],
        }[kind]


KINDS = [
    *(
        "sparse",
        "fake",
        "meta",
        "nested",
        "jagged",
        "mkldnn",
        "quantized",
        "float8",
        "complex",
        "float64",
        "objects",
    ),
    *("a number", "text", "list of lists", "nothing"),
]


@pytest.fixture(scope="module")
def compiled() -> subpc.CompiledModel:
    return subpc.compile(net(), X)


@pytest.mark.parametrize("kind", KINDS)
def test_examples_inputs_and_images(kind: str, compiled: subpc.CompiledModel) -> None:
    value = strange(kind)
    for call in (
        lambda: subpc.compile(net(), value),
        lambda: compiled(value),
        lambda: compiled.run({"input": value}),
        lambda: subpc.compress(net(), DfmpcConfig(), images=value),
    ):
        with pytest.raises((ConfigError, UnsupportedModelError)) as caught:
            call()
        assert len(str(caught.value).splitlines()) <= 2
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "examples", [[X], {"input": X}, X.numpy(), (X.numpy(),), X.clone().requires_grad_()]
)
def test_examples_in_other_dress(examples: Any) -> None:
    torch.testing.assert_close(
        subpc.compile(net(), examples)(X), net()(X).detach(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("examples", [(X, X), {"x": X}, {"input": X, "y": X}])
def test_another_number_of_examples(examples: Any) -> None:
    with pytest.raises(ConfigError):
        subpc.compile(net(), examples)


@pytest.mark.parametrize(
    "shape", [(1, 4, 8, 8), (1, 3, 2, 2), (3, 8, 8), (1, 3, 8, 0), (1, 3, 1 << 20, 1 << 20), 5]
)
def test_shapes_that_a_network_to_compress_does_not_take(shape: Any) -> None:
    with pytest.raises(ConfigError, match="shape"):
        subpc.compress(net(), DfmpcConfig(), input_shape=shape)


@pytest.mark.parametrize("method", ["dfmpc", "udfc", "blocks"])
@pytest.mark.parametrize("shape", ["1,4,28,28", "1,1,28,28:uint8", "1,1,100000,100000"])
def test_compress_on_the_command_line(
    method: str, shape: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from subpc.frontend.architectures.build import build_arch

    torch.save(build_arch("subpc:resnet20").state_dict(), tmp_path / "w.pt")
    arguments = [
        "compress",
        method,
        str(tmp_path / "w.pt"),
        "--arch",
        "subpc:resnet20",
        "--shape",
        shape,
        "-o",
        str(tmp_path / "o.pt"),
    ]
    assert run(arguments) == 2
    assert "shape 1," in (message := capsys.readouterr().err)
    assert "internal" not in message
    assert len(message.splitlines()) <= 2
