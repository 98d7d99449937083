"""A float network rounded to codes: close to what it was, in the form that the passes take."""

from collections.abc import Callable

import pytest
import torch
import tvm
from torch import nn

from subpc.calibration.interpret import Interpreter
from subpc.calibration.quantize import Settings, calibrate, quantize
from subpc.demo.random_networks import set_statistics
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.build import build_arch
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of
from subpc.passes.norm_statistics import Norm
from tests.subpc.calibration.float_network import rewritten
from tests.subpc.small_net import SHAPE, small_net

# With images, or without.
CASES = {
    "as it is, with images": (Settings(), True),
    "as it is, without": (Settings(), False),
    "equalized": (Settings(equalize=True), True),
    "matched": (Settings(match=True), False),
    "biases as they are": (Settings(correct=False), True),
    **{method: (Settings(method=method), True) for method in ("min-max", "percentile", "entropy")},
}


def images(count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(1))


def noise(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the deviation of the results."""
    return float((found - expected).std() / expected.std())


@pytest.mark.parametrize("case", CASES)
def test_the_network_stays_what_it_was(case: str) -> None:
    settings, given = CASES[case]
    network = rewritten(small_net(), *SHAPE)
    rounded = quantize(network, images(8) if given else None, settings)
    x = images(20)[8:]
    found, expected = (Interpreter(m).run(x)[0] for m in (rounded, network.module))
    # Entropy cuts off much of the values of a network as small as this one.
    most = 0.2 if settings.method == "entropy" else 0.06
    assert 1e-4 < noise(found, expected) < most


def test_layers_have_weights_of_codes_and_what_they_read_is_rounded() -> None:
    graph = Dataflow(quantize(rewritten(small_net(), *SHAPE))["main"])
    layers = [call for _, call in graph.calls(ops.CONV2D, ops.LINEAR)]
    assert len(layers) == 4
    for call in layers:
        stored = graph.call(call.args[1], ops.DEQUANTIZE)
        assert stored is not None
        codes, scales = (constant_of(arg) for arg in stored.args)
        assert (codes.dtype, scales.dtype) == ("int8", "float32")
        assert len(codes) == len(scales)
        view = graph.call(call.args[0], ops.VIEW)
        source = view.args[0] if view is not None else call.args[0]
        assert graph.call(source, ops.FAKE_QUANTIZE) is not None
        if len(call.args) == 4:
            assert graph.call(call.args[3], ops.FAKE_QUANTIZE) is not None


def test_layers_that_are_to_compute_in_floats_keep_their_weights() -> None:
    settings = Settings(layers=lambda name: name != "fc")
    graph = Dataflow(quantize(rewritten(small_net(), *SHAPE), None, settings)["main"])
    ((_, linear),) = graph.calls(ops.LINEAR)
    assert constant_of(graph.resolve(linear.args[1])).dtype == "float32"


def test_the_same_network_becomes_the_same_codes_every_time() -> None:
    network, x = rewritten(small_net(), *SHAPE), images(4)
    first, second = (Interpreter(quantize(network)).run(x)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_images_with_values_that_are_not_finite_name_the_tensor() -> None:
    x = images(8)
    x[3, 0, 0, 0] = float("nan")
    with pytest.raises(ConfigError, match="not finite on the images") as error:
        quantize(rewritten(small_net(), *SHAPE), x)
    assert len(str(error.value).splitlines()) == 1


class Uneven(nn.Module):
    """Channels of very different ranges between layers, as trained networks have them."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act = nn.Conv2d(3, 32, 3, padding=1), act
        self.depthwise, self.last = nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 8, 1)
        scales = 4.0 ** torch.linspace(-3, 3, 32).reshape(-1, 1, 1, 1) / 50
        with torch.no_grad():
            self.first.weight *= scales
            self.first.bias *= scales.reshape(-1)
            self.depthwise.weight /= scales

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.depthwise(self.act(self.first(x)))))


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.1)], ids=str)
def test_channels_of_different_ranges_are_equalized(act: nn.Module) -> None:
    network, x = rewritten(Uneven(act), *SHAPE), images(16)
    (expected,) = Interpreter(network.module).run(x[8:])
    off = []
    for equalize in (True, False):
        rounded = quantize(network, x[:8], Settings(equalize=equalize))
        off.append(noise(Interpreter(rounded).run(x[8:])[0], expected))
    assert off[0] < 0.3 * off[1]


@pytest.mark.parametrize("act", [nn.Hardswish(), nn.SiLU(), nn.Sigmoid(), nn.ReLU6()], ids=str)
def test_activations_that_do_not_scale_are_left_alone(act: nn.Module) -> None:
    network, x = rewritten(Uneven(act), *SHAPE), images(8)
    scaled, plain = (
        Interpreter(quantize(network, x, Settings(equalize=equalize))).run(x)[0]
        for equalize in (True, False)
    )
    assert torch.equal(scaled, plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "googlenet"])
@pytest.mark.parametrize("equalize", [True, False])
def test_whole_networks_stay_close(name: str, equalize: bool) -> None:
    """Random weights amplify what each layer rounds (0.1 to 0.4 of the deviation); an answer that
    has nothing to do with the network is 1.4 off."""
    options = {"init_weights": True} if name == "googlenet" else {}
    shape = (1, 3, 64, 64)
    torch.manual_seed(0)
    net = set_statistics(build_arch(f"torchvision:{name}", **options), (8, *shape[1:]))
    network = rewritten(net, *shape)
    x = torch.randn(24, *shape[1:], generator=torch.Generator().manual_seed(1))
    settings = Settings(equalize=equalize)
    (found,) = Interpreter(quantize(network, x[:16], settings)).run(x[16:])
    (expected,) = Interpreter(network.module).run(x[16:])
    assert noise(found, expected) < 0.5


def test_stand_ins_get_the_statistics_that_batch_norms_expect() -> None:
    """Ranges without data follow a norm that no random image would have led to."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    mean, deviation = torch.full((8,), 100.0), torch.full((8,), 5.0)
    norms = {"0": Norm(mean=mean.numpy(), deviation=deviation.numpy())}
    graph = Dataflow(
        quantize(rewritten(net, *SHAPE, norms=norms), None, Settings(match=True))["main"]
    )
    ((_, last),) = [(v, c) for v, c in graph.calls(ops.CONV2D) if ops.layer_of(c) == "1"]
    rounded = graph.call(last.args[0], ops.FAKE_QUANTIZE)
    q = ops.quantization_of(ops.attributes(rounded)["quantization"])
    assert q.zero_point == 0
    assert 105 < 255 * q.scale < 100 + 8 * 5


class Between(nn.Module):
    """Two layers whose results meet in `meet` before a third one."""

    def __init__(self, meet: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(SHAPE[1], SHAPE[1], 1) for _ in range(3))
        self.meet = meet
        for layer in (self.a, self.b):
            # Channels of very different ranges, which equalization is tempted by.
            layer.weight.data *= torch.logspace(-1, 1, SHAPE[1]).reshape(-1, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.meet(self.a(x), self.b(x)))


@pytest.mark.parametrize(
    "meet",
    [
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x / (y.abs() + 1),
        lambda x, y: torch.maximum(x, y),
        lambda x, y: torch.relu(x + y) - 0.5,
        lambda x, y: torch.sigmoid(x + y),
        lambda x, y: torch.relu(x + y),
    ],
    ids=["sub", "mul", "div", "maximum", "const", "sigmoid", "relu"],
)
def test_anything_may_lie_between_layers(
    meet: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    torch.manual_seed(0)
    network = rewritten(Between(meet), *SHAPE)
    x = images(20)
    rounded = quantize(network, x)
    found, expected = (Interpreter(m).run(x)[0] for m in (rounded, network.module))
    assert 1e-4 < noise(found, expected) < 0.06


WRONG = {
    "a weight": lambda net: net[0].weight.data[0, 0, 0].fill_(torch.nan),
    "a bias": lambda net: net[0].bias.data[1:2].fill_(torch.inf),
    "a norm": lambda net: net[1].running_var[2:].fill_(-1.0),
    "the mean of a norm": lambda net: net[1].running_mean[2:].fill_(torch.nan),
}


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(SHAPE[1], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_are_not_finite_name_the_layer(case: str) -> None:
    net = normed()
    WRONG[case](net)
    with pytest.raises(UnsupportedModelError, match=r"^layer 0: weights that are not fin") as error:
        quantize(rewritten(net, *SHAPE))
    assert len(str(error.value).splitlines()) <= 2


STILL = {
    "a dead filter": lambda net: (net[0].weight.data[3].zero_(), net[0].bias.data[3:4].zero_()),
    "a layer of zeros": lambda net: (net[3].weight.data.zero_(), net[3].bias.data.zero_()),
    "a first layer of zeros": lambda net: (net[0].weight.data.zero_(), net[0].bias.data.zero_()),
    "tiny weights": lambda net: net[0].weight.data.mul_(1e-38),
    "huge weights, which the norm makes good": lambda net: (
        net[0].weight.data.mul_(1e12),
        net[0].bias.data.mul_(1e12),
        net[1].running_var.fill_(1e24),
    ),
}


@pytest.mark.parametrize("case", STILL)
def test_layers_that_compute_next_to_nothing_stay_what_they_were(case: str) -> None:
    """Ranges that are a single number have a scale, and it is finite."""
    net = normed()
    STILL[case](net)
    network, x = rewritten(net, *SHAPE), images(8)
    found, expected = (Interpreter(m).run(x)[0] for m in (quantize(network), network.module))
    assert found.isfinite().all()
    assert (found - expected).std() <= 0.1 * expected.std() + 1e-6


def test_one_calibration_rounds_any_choice_of_layers() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    calibrated = calibrate(rewritten(net, 1, 3, 8, 8))
    x = torch.rand(2, 3, 8, 8)

    def result(module: tvm.IRModule) -> torch.Tensor:
        return Interpreter(module).run(x)[0]

    floats, whole = result(calibrated.network.module), result(calibrated.rounded())
    first = result(calibrated.rounded(lambda name: name == "0"))
    last = result(calibrated.rounded(lambda name: name == "2"))
    assert torch.equal(result(calibrated.rounded(lambda name: False)), floats)
    assert torch.equal(result(quantize(calibrated.network)), whole)
    assert not any(torch.equal(some, other) for some in (first, last) for other in (floats, whole))
    assert not torch.equal(first, last)
