"""Both networks on few pictures in front and on all behind: pictures that join later have seen the same as those that were there."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from subpc.algorithms import picture_counts
from subpc.algorithms.moments import Inputs, Moments
from subpc.algorithms.picture_counts import count_pictures
from subpc.algorithms.picture_run import PictureRun, _kind
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig

from .trained import accuracy, digits, trained


class Branches(nn.Module):
    """Values that lie side by side while pictures join: a shortcut, a list, and one tensor for all pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(32, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
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


def follow(both: tuple[nn.Module, nn.Module], pictures: torch.Tensor, change: Callable[[str], None]) -> dict[str, Moments]:
    seen: dict[str, Moments] = {}

    def at_layer(name: str, inputs: Inputs) -> None:
        found = inputs()
        assert found is not None
        seen[name] = found
        change(name)

    with torch.no_grad():
        PictureRun(fx.symbolic_trace(both[0]).graph, both, at_layer, None, True).run(pictures)
    return seen


def test_few_pictures_in_front_and_all_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_counts, "BUDGET", 2 * 20 * 4 * 32 * 32 * (32 + 32))  # in front of and behind the first ReLU
    net, _ = nets(Branches)
    nodes = [node for node in fx.symbolic_trace(net).graph.nodes if node.op != "output"]
    run = fx.Interpreter(fx.GraphModule(net, nodes[0].graph))
    counts = count_pictures(nodes, run, torch.randn(1, 3, 32, 32), 50)
    by_name = {node.name: count for node, count in counts.at.items()}
    assert by_name["wide_0"] == 20
    assert by_name["last"] == 50
    in_order = [counts.at[node] for node in nodes]
    assert in_order == sorted(in_order)
    assert counts.together == 5


def test_pictures_that_join_give_what_they_would_have_given_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).repeat(48, 1, 1, 1)
    found = {}
    for budget in (1 << 30, 1 << 20):
        monkeypatch.setattr(picture_counts, "BUDGET", budget)
        both = nets(Branches)

        def change(name: str, both: tuple[nn.Module, nn.Module] = both) -> None:
            both[1].get_submodule(name).weight.mul_(1.1).round_(decimals=1)  # type: ignore[operator, union-attr]

        found[budget] = follow(both, pictures, change)["last"], both[1].state_dict()
    (whole, state), (joined, other) = found.values()
    torch.testing.assert_close(joined.covariance, whole.covariance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(joined.answers, whole.answers, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other, state, rtol=1e-4, atol=1e-5)


def test_channels_that_were_removed_stay_away_from_pictures_that_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_counts, "BUDGET", 1 << 20)
    small, _, _ = compress_udfc(trained(), UdfcConfig(ratio=0.5, bits=4), pictures=digits()[0][:300])
    assert accuracy(small) > accuracy(trained()) - 5


def test_the_order_of_the_pictures_does_not_decide_which_are_seen_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_counts, "BUDGET", 1 << 20)
    x, y = digits()
    small, _, _ = compress_udfc(trained(), UdfcConfig(ratio=0.5, bits=4), pictures=x[:300][y[:300].argsort()])
    assert accuracy(small) > accuracy(trained()) - 5


@pytest.mark.parametrize(
    ("value", "sample", "kind"),
    [
        (torch.zeros(16, 3, 4), torch.zeros(1, 3, 4), "each"),
        ((torch.zeros(16, 3), torch.zeros(16)), (torch.zeros(1, 3), torch.zeros(1)), "each"),
        (torch.zeros(3, 1), torch.zeros(3, 1), "all"),
        (7, 7, "all"),
        (16, 1, None),
        (torch.zeros(16), torch.zeros(()), None),  # squeezed
        (torch.zeros(48, 2), torch.zeros(3, 2), None),  # pictures and channels folded together
    ],
)
def test_what_belongs_to_which_picture(value: object, sample: object, kind: str | None) -> None:
    assert _kind(value, sample, 16) == kind
