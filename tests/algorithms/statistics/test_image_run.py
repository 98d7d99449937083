"""Both networks on few images in front and on all behind, values held or worked out again: what is
seen is the same."""

import copy
import operator
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from subpc.algorithms.statistics import image_plan, image_run
from subpc.algorithms.statistics.image_plan import plan_images
from subpc.algorithms.statistics.image_run import ImageRun
from subpc.algorithms.statistics.image_values import changes_input
from subpc.algorithms.statistics.moments import Inputs, Moments
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from tests.algorithms.trained import accuracy, digits, trained


class Branches(nn.Module):
    """Values that lie side by side while images join: a shortcut, a list, and one tensor for all
    images."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.narrow = nn.Sequential(
            nn.Conv2d(32, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrow = self.narrow(self.wide(x)) * self.scale
        left, right = narrow.chunk(2, 1)
        return self.last(torch.cat([right, left], 1)) + narrow


def nets(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    first = make().eval().requires_grad_(False)
    for module in first.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
    return first, copy.deepcopy(first)


def follow(
    both: tuple[nn.Module, nn.Module], images: torch.Tensor, change: Callable[[str], None]
) -> dict[str, Moments]:
    seen: dict[str, Moments] = {}

    def at_layer(name: str, inputs: Inputs) -> None:
        found = inputs()
        assert found is not None
        seen.setdefault(name, found)
        change(name)

    with torch.no_grad():
        ImageRun(fx.symbolic_trace(both[0]).graph, both, at_layer, None, True).run(images)
    return seen


def test_few_images_in_front_and_all_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        image_plan, "VALUES", 2 * 20 * 4 * 32 * 32 * (32 + 32)
    )  # in front of and behind the first ReLU
    net, _ = nets(Branches)
    nodes = [node for node in fx.symbolic_trace(net).graph.nodes if node.op != "output"]
    run = fx.Interpreter(fx.GraphModule(net, nodes[0].graph))
    plan = plan_images(nodes, run, torch.randn(1, 3, 32, 32), 50)
    by_name = {node.name: node for node in nodes}
    assert plan.at[by_name["wide_0"]] == 20
    assert plan.at[by_name["last"]] == 50
    assert plan.sizes[by_name["wide_0"]] == 4 * 32 * 32 * 32
    assert (
        plan.sizes[by_name["scale"]] == plan.sizes[by_name["chunk"]] == 0
    )  # no row for each image
    in_order = [plan.at[node] for node in nodes]
    assert in_order == sorted(in_order)


def test_images_that_join_give_what_they_would_have_given_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).repeat(
        48, 1, 1, 1
    )
    found = {}
    for budget in (1 << 30, 1 << 20):
        monkeypatch.setattr(image_plan, "VALUES", budget)
        both = nets(Branches)

        def change(name: str, both: tuple[nn.Module, nn.Module] = both) -> None:
            both[1].get_submodule(name).weight.mul_(1.1).round_(decimals=1)  # type: ignore[operator, union-attr]

        found[budget] = follow(both, images, change)["last"], both[1].state_dict()
    (whole, state), (joined, other) = found.values()
    torch.testing.assert_close(joined.covariance, whole.covariance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(joined.answers, whole.answers, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other, state, rtol=1e-4, atol=1e-5)


def test_channels_that_were_removed_stay_away_from_images_that_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_plan, "VALUES", 1 << 20)
    small, _, _ = compress_udfc(trained(), UdfcConfig(ratio=0.5, bits=4), images=digits()[0][:300])
    assert accuracy(small) > accuracy(trained()) - 5


def test_the_order_of_the_images_does_not_decide_which_are_seen_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_plan, "VALUES", 1 << 20)
    x, y = digits()
    small, _, _ = compress_udfc(
        trained(), UdfcConfig(ratio=0.5, bits=4), images=x[:300][y[:300].argsort()]
    )
    assert accuracy(small) > accuracy(trained()) - 5


class WritesOver(nn.Module):
    """In-place activations and sums, as many published networks have them; one result is read again
    after it was written over."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.third, self.fourth = (
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(4, 4, 1),
        )
        self.last = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.first(x)))
        y = self.second(x)
        F.relu_(y)
        y.add_(x)
        z = self.third(self.relu(y))
        half = z[:, :4]
        half.mul_(2)
        return self.fourth(self.last(half)) + y[:, :4]


class Joined(nn.Module):
    """Features that are joined again and again in front of batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 2 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 2 * i, 2, 3, padding=1) for i in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.first(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)), inplace=True)))
        return torch.cat(features, 1)


@pytest.mark.parametrize("make", [Branches, WritesOver, Joined])
@pytest.mark.parametrize(("held", "part"), [(0, 1), (0, 1 << 20), (1 << 14, 1), (1 << 30, 1 << 14)])
def test_layers_see_the_same_whatever_is_held(
    make: Callable[[], nn.Module], held: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a layer sees in the unchanged network is what it sees when the network runs as a whole,
    with statistics of the batch."""
    monkeypatch.setattr(image_run, "HELD", held)
    monkeypatch.setattr(image_run, "_PART", part)
    images = torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    both = nets(make)
    expected = seen_by_layers(both[0], images)
    for name, moments in follow(both, images, lambda _: None).items():
        values = expected[name] - expected[name].mean(0)
        torch.testing.assert_close(
            moments.covariance[0].float(), values.T @ values / len(values), rtol=1e-3, atol=1e-5
        )


def seen_by_layers(net: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """(places, d) under each convolution's filters at its first call, batch norms taking the
    statistics of these images."""
    net, seen = copy.deepcopy(net), {}

    def look(name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
        columns = F.unfold(
            inputs[0], layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        seen.setdefault(name, columns.transpose(1, 2).reshape(-1, columns.shape[1]))

    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(partial(look, name))
    with torch.no_grad():
        net(images)
    return seen


class Squeezed(nn.Module):
    """What one image gives has another shape than what several give."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Linear(8, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.norm(self.first(x))).mean((2, 3), keepdim=True).squeeze())


@pytest.mark.parametrize("few", [1 << 30, 1 << 14])
def test_no_image_is_alone(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """17 images, which no number of them at a time but one divides; the last joins 16."""
    monkeypatch.setattr(image_plan, "VALUES", few)
    images = torch.randn(17, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for part in (1, 2 << 13, 1 << 30):
        monkeypatch.setattr(image_run, "_PART", part)
        both = nets(Squeezed)
        found.append(
            (follow(both, images, lambda _: None)["last"].covariance, both[1].state_dict())
        )
    for covariance, state in found[:-1]:
        torch.testing.assert_close(covariance, found[-1][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(state, found[-1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "writes"),
    [
        (lambda x: F.relu_(x), True),
        (lambda x: F.silu(x, True), True),
        (lambda x: F.leaky_relu(x, 0.1, inplace=True), True),
        (lambda x: x.add_(1), True),
        (lambda x: operator.iadd(x, 1), False),  # traced as a sum
        (lambda x: F.silu(x, False), False),
        (lambda x: torch.cat([x, x], 1), False),
        (lambda x: x.__add__(1), False),
    ],
)
def test_which_calls_write_over_their_input(
    call: Callable[[torch.Tensor], torch.Tensor], writes: bool
) -> None:
    graph = fx.symbolic_trace(call).graph
    assert (
        any(changes_input(node, None) for node in graph.nodes if node.op.startswith("call"))
        == writes
    )
