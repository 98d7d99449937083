"""`subpc.compress` from Python: which configurations it takes, and what it says that it looked
at."""

import pytest
import torch
from torch import nn

import subpc
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.config import Config
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.errors import ConfigError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    ]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


@pytest.mark.parametrize("config", [UdfcConfig(), DfmpcConfig(), BlockConfig(n=4)])
def test_the_report_says_which_images_were_used(config: Config) -> None:
    smaller, report = subpc.compress(network(), config, input_shape=(1, 3, 20, 24))
    assert report.inputs == "none (64 generated ones of 24x20)"
    assert smaller(torch.rand(1, 3, 20, 24)).shape == (1, 4)


@pytest.mark.parametrize(
    "config",
    [UdfcConfig(inputs="normal"), DfmpcConfig(inputs="normal"), BlockConfig(n=4, inputs="normal")],
)
def test_normal_variables_need_none(config: Config) -> None:
    assert subpc.compress(network(), config)[1].inputs == "none"


def lone() -> nn.Sequential:
    """Not two convolutions behind each other, so that no channel can go and no layer be the low
    one."""
    parts = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4, 2)).eval()


@pytest.mark.parametrize(
    ("net", "config", "notes"),
    [
        (
            lone(),
            DfmpcConfig(low_bits=4, high_bits=8),
            ["no layer got 4 bits, all have 8"],
        ),
        (lone(), UdfcConfig(), ["ratio 0.3 removed no channel"]),
        (lone(), UdfcConfig(ratio=0.0), []),
        (network(), UdfcConfig(ratio=0.01), ["ratio 0.01 removed no channel"]),
        (network(), DfmpcConfig(), []),
        (
            network(),
            DfmpcConfig(lambda1=0.1),
            ["lambda1 0.1 has no effect: it belongs to compensation scalar"],
        ),
        (
            network(),
            BlockConfig(n=4, criterion="l1", rounds=3),
            ["rounds 3 has no effect: it belongs to criterion error"],
        ),
    ],
)
def test_settings_that_change_nothing_are_named(
    net: nn.Module, config: Config, notes: list[str]
) -> None:
    found = subpc.compress(net, config, input_shape=(1, 3, 8, 8))[1].notes
    assert len(found) == len(notes)
    assert all(a.startswith(b) for a, b in zip(found, notes, strict=True))


def test_subp_is_pointed_to_its_training() -> None:
    with pytest.raises(ConfigError, match=r"got SubpConfig\.\nSUBP trains from scratch"):
        subpc.compress(network(), SubpConfig())  # type: ignore[arg-type]
