"""torch.compile(model, backend="subpc")."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from subpc.compiler import torch_compile
from subpc.compiler.torch_compile import GraphFallbackWarning, weight_name
from subpc.errors import ConfigError, TargetError
from subpc.frontend.architectures.torchvision_import import import_torchvision
from tests.subpc.small_net import SHAPE, small_net


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphFallbackWarning)
        yield


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every library that was compiled meanwhile."""
    from subpc.compiler import compile_model

    made: list[Any] = []
    original = compile_model.compile
    monkeypatch.setattr(
        compile_model, "compile", lambda *a, **k: made.append(original(*a, **k)) or made[-1]
    )
    return made


def image(batch: int = 1, size: int = 16) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def test_the_backend_is_registered() -> None:
    assert "subpc" in torch._dynamo.list_backends()


def test_several_threads_may_start_with_the_function() -> None:
    nets, start, wrong = [small_net() for _ in range(4)], threading.Barrier(4), []

    def call(net: nn.Module) -> None:
        start.wait()
        try:
            with torch.inference_mode():
                torch.testing.assert_close(
                    torch.compile(net, backend=torch_compile.backend)(image()),
                    net(image()),
                    rtol=1e-4,
                    atol=1e-5,
                )
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=call, args=(net,)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_names_and_recompilation_for_a_new_batch_size(compiled: list[Any]) -> None:
    net = small_net()
    fast = torch.compile(net, backend="subpc")
    with torch.inference_mode():
        for batch, libraries in ((1, 1), (2, 2), (3, 3), (1, 3), (2, 3)):
            torch.testing.assert_close(fast(image(batch)), net(image(batch)), rtol=1e-4, atol=1e-5)
            assert len(compiled) == libraries
    assert [layer.name for layer in compiled[0].report.layers] == [
        "stem",
        "block.conv1",
        "block.conv2",
        "fc",
    ]
    assert [library.functions[0].inputs[0].shape[0] for library in compiled] == [1, 2, 3]


def test_new_weights_are_seen(compiled: list[Any]) -> None:
    net = small_net()
    fast = torch.compile(net, backend="subpc")
    with torch.no_grad():
        fast(image())
        net.fc.weight.mul_(2)
        torch.testing.assert_close(fast(image()), net(image()), rtol=1e-4, atol=1e-5)
        net.load_state_dict(small_net(pruned="block.conv1").state_dict())
        torch.testing.assert_close(fast(image()), net(image()), rtol=1e-4, atol=1e-5)
    assert len(compiled) == 3


class Unsupported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).topk(3).values


class Writes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return x + 1


class Numbers(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return x + 1, None


def falls_back(
    net: nn.Module, x: torch.Tensor, message: str, context: Callable[[], Any] = torch.no_grad
) -> torch.Tensor:
    fast = torch.compile(net, backend="subpc")
    with context(), pytest.warns(GraphFallbackWarning, match=message):
        return fast(x)


def test_an_unsupported_operator_is_named_and_left_to_pytorch() -> None:
    torch.testing.assert_close(
        falls_back(Unsupported(), image(), "aten.topk.default"), Unsupported()(image())
    )


def test_gradients_are_left_to_pytorch() -> None:
    net = small_net()
    falls_back(net, image(), "gradients are wanted", torch.enable_grad).sum().backward()
    assert net.stem.weight.grad is not None


def test_training_mode_is_left_to_pytorch() -> None:
    net = small_net().train()
    before = net.block.bn1.running_mean.clone()
    falls_back(net, image(2), "training mode")
    assert not torch.equal(net.block.bn1.running_mean, before)


def test_dropout_in_training_mode_is_left_to_pytorch() -> None:
    assert falls_back(
        nn.Dropout(0.5).train(), torch.ones(1, 3, 16, 16), "training mode"
    ).unique().tolist() == [0.0, 2.0]


def test_writing_to_an_input_is_left_to_pytorch() -> None:
    x = torch.ones(SHAPE)
    assert falls_back(Writes(), x, "in place").unique().tolist() == [3.0]
    assert x.unique().tolist() == [2.0]


def test_half_precision_is_left_to_pytorch() -> None:
    assert falls_back(small_net().bfloat16(), image().bfloat16(), "float32").dtype == torch.bfloat16
    falls_back(small_net(), image(), "autocast is on", autocast)


@contextmanager
def autocast() -> Iterator[None]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        yield


def test_other_devices_are_left_to_pytorch() -> None:
    graph = torch.fx.symbolic_trace(nn.ReLU())
    with pytest.warns(GraphFallbackWarning, match="tensors on meta"):
        assert torch_compile.backend(graph, [torch.empty(1, device="meta")]) == graph.forward


def test_too_many_shapes_end_in_pytorch(
    monkeypatch: pytest.MonkeyPatch, compiled: list[Any]
) -> None:
    monkeypatch.setattr(torch_compile, "MAX_SHAPES", 2)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    fast = torch.compile(net, backend="subpc", dynamic=True)
    with torch.no_grad():
        fast(image(2, 8))
        fast(image(2, 9))
        with pytest.warns(GraphFallbackWarning, match="more than 2 sets of input shapes"):
            fast(image(2, 10))
        torch.testing.assert_close(fast(image(2, 11)), net(image(2, 11)))
    assert len(compiled) == 2


def test_options(compiled: list[Any]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    with torch.no_grad():
        torch.compile(net, backend="subpc", options={"threads": 1, "target": "llvm"})(image())
        assert (compiled[0].threads, compiled[0].report.metadata.target) == (1, "llvm")
        with pytest.raises(
            Exception, match="'thread' are not known; accepted: target, threads, sparse, precision,"
        ):
            torch.compile(net, backend="subpc", options={"thread": 1})(image(2))


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"target": "gpu"}, {"sparse": "maybe"}], ids=str
)
def test_a_wrong_option_is_an_error_not_a_fallback(options: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, TargetError)):
        torch_compile.backend(torch.fx.symbolic_trace(nn.ReLU()), [image()], options=options)


def test_names_of_weights() -> None:
    assert (
        weight_name("l_self_modules_layer1_modules_0_modules_conv1_parameters_weight_")
        == "layer1.0.conv1.weight"
    )
    assert weight_name("l_self_modules_bn1_buffers_running_mean_") == "bn1.running_mean"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_networks(name: str, compiled: list[Any]) -> None:
    torch.manual_seed(0)
    net = getattr(import_torchvision().models, name)().eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.mul_(0.5)
    fast = torch.compile(net, backend="subpc")
    with torch.inference_mode():
        for batch in (1, 2):
            expected = net(image(batch, 64))
            torch.testing.assert_close(
                fast(image(batch, 64)), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
            )
    assert len(compiled) == 2
