"""The search finds the strongest setting that is allowed, and leaves the layers alone that hurt
most for their bytes."""

import pytest

from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.config import Config
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.registry import method_of
from subpc.algorithms.report import LayerResult
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.compression.strength_search import Attempt, StrengthSearch, harm_order
from subpc.errors import ConfigError

NONE: frozenset[str] = frozenset()


def layer(name: str, **facts: object) -> LayerResult:
    return LayerResult(name=name, filters=8, kept=8, **{"bits": 4, "bytes": 100, **facts})  # type: ignore[arg-type]


class Network:
    """Loses `cost` points a bit below 8 in each of four layers, and twenty times as much in the one
    called `weak`, which is small."""

    def __init__(self, cost: float) -> None:
        self.cost, self.tried = cost, list[str]()

    def __call__(self, config: Config, text: str, before: int) -> Attempt:
        assert before == len(self.tried)
        self.tried.append(text)
        assert isinstance(config, UdfcConfig)
        width = config.bits or 8
        names = ("a", "weak", "b", "c")
        sizes = {
            name: (1 if name == "weak" else 100) * (32 if name in config.skip else width)
            for name in names
        }
        costs = {
            name: 0
            if name in config.skip
            else (8 - width) * self.cost * (20 if name == "weak" else 1)
            for name in names
        }
        layers = [
            layer(
                name,
                bytes=sizes[name],
                bits=32 if name in config.skip else width,
                error_after=costs[name],
            )
            for name in names
        ]
        return Attempt(accuracy=90 - sum(costs.values()), bytes=sum(sizes.values()), layers=layers)


def search(
    network: Network, max_drop: float, fixed: frozenset[str] = frozenset({"ratio"})
) -> StrengthSearch:
    return StrengthSearch(
        UdfcConfig(ratio=0.0), network, reference=90.0, max_drop=max_drop, fixed=fixed
    )


def test_the_strongest_width_that_is_allowed() -> None:
    found = search(Network(0.001), 0.5)
    config, outcome = found.run()
    assert (config.bits, config.skip) == (2, ())  # type: ignore[attr-defined]
    assert outcome.accuracy == pytest.approx(90 - 0.001 * 6 * 23)


def test_the_layer_that_hurts_most_for_its_bytes_is_left_alone() -> None:
    found = search(Network(0.05), 1.0)
    config, outcome = found.run()
    assert (config.bits, config.skip, found.left_alone) == (2, ("weak",), ("weak",))  # type: ignore[attr-defined]
    assert outcome.accuracy == pytest.approx(90 - 0.05 * 6 * 3)


def test_what_was_tried_is_told_and_nothing_is_tried_twice() -> None:
    network = Network(0.05)
    found = search(network, 1.0)
    found.run()
    assert len(set(network.tried)) == len(found.steps)
    assert [(step.left_alone, step.within) for step in found.steps if step.setting == "bits 5"] == [
        (0, False),
        (2, True),
        (1, True),
    ]


def test_nothing_that_is_allowed() -> None:
    with pytest.raises(ConfigError, match="more than --max-drop"):
        StrengthSearch(
            UdfcConfig(),
            lambda *facts: Attempt(accuracy=10, bytes=1, layers=[]),
            reference=90,
            max_drop=1,
            fixed=NONE,
        ).run()


def test_where_every_layer_hurts_the_gentlest_setting_stays() -> None:
    config, outcome = search(Network(2.0), 1.0).run()
    assert (config.bits, config.skip, outcome.accuracy) == (8, (), 90)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "fixed", "first", "last"),
    [
        (UdfcConfig(), NONE, [{"bits": 8}, {"ratio": 0.05}], [{"bits": 2}, {"ratio": 0.9}]),
        (UdfcConfig(), frozenset({"bits"}), [{"ratio": 0.05}], [{"ratio": 0.9}]),
        (DfmpcConfig(), NONE, [{"low_bits": 8, "high_bits": 8}], [{"low_bits": 2, "high_bits": 3}]),
        (DfmpcConfig(), frozenset({"high_bits"}), [{"low_bits": 8}], [{"low_bits": 2}]),
        (BlockConfig(), NONE, [{"sparsity": 1 / 16}], [{"sparsity": 15 / 16}]),
    ],
)
def test_ladders_go_from_gentle_to_strong(
    config: Config, fixed: frozenset[str], first: list[object], last: list[object]
) -> None:
    found = method_of(config).ladders(fixed)
    assert [rungs[0] for rungs in found] == first
    assert [rungs[-1] for rungs in found] == last


def test_every_ladder_starts_where_the_search_does() -> None:
    gentle = method_of(UdfcConfig()).gentlest(UdfcConfig(ratio=0.5, bits=3), frozenset({"bits"}))
    assert (gentle.ratio, gentle.bits) == (0.0, 3)


def test_nothing_left_to_search() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        search(Network(0.05), 1.0, fixed=frozenset({"bits", "ratio"})).run()


def test_harm_is_noise_for_bytes() -> None:
    layers = [
        layer("quiet", snr=40.0),
        layer("loud", snr=10.0),
        layer("behind", snr=9.9),
        layer("alone", bits=32, snr=9.9),
    ]
    assert harm_order(layers) == ["loud", "behind", "quiet"]
    assert (
        harm_order([layer("large", snr=20.0, bytes=10_000), layer("small", snr=17.0, bytes=10)])[0]
        == "small"
    )
