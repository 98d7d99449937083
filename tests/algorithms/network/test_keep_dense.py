"""Which convolutions SUBP leaves dense: the paper's choices (its table of layers), names, sizes,
and what cannot be cut into blocks."""

import pytest
from torch import nn

from subpc.algorithms.network.keep_dense import PAPER, dense_reasons
from subpc.frontend.architectures.build import build_arch


def dense(arch: str, *keep: str, n: int = 16) -> dict[str, str]:
    model = build_arch(arch)
    convs = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    }
    return {name: reason for name, reason in dense_reasons(convs, keep, n).items() if reason}


def test_basic_blocks_keep_their_projections_dense() -> None:
    assert dense("resnet18", PAPER) == {"conv1": "stem"} | {
        f"layer{i}.0.downsample.0": "kept dense by its name" for i in (2, 3, 4)
    }


def test_bottlenecks_prune_theirs() -> None:
    assert dense("resnet50", PAPER) == {"conv1": "stem"}


def test_depthwise_layers_stay_dense() -> None:
    reasons = dense("mobilenet_v2", PAPER, n=8)
    assert list(reasons.values()) == ["stem"] + ["depthwise"] * 17


def test_names_sizes_and_filters_that_do_not_divide() -> None:
    assert set(dense("resnet50", "layer[12].*").values()) == {"stem", "kept dense by its name"}
    assert list(dense("resnet18", "1x1").values()) == ["stem"] + ["kept dense by its size, 1x1"] * 3
    assert dense("mobilenet_v2", n=32)["features.2.conv.2"] == "24 filters, not divisible by 32"


@pytest.mark.parametrize("keep", [(), ("nothing*",)])
def test_without_a_match_only_the_stem_is_dense(keep: tuple[str, ...]) -> None:
    assert dense("resnet18", *keep) == {"conv1": "stem"}
