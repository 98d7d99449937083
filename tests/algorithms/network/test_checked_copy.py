"""What the data-free methods start from: a copy whose weights are lent until they are set."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from subpc.algorithms.blocks.compress import compress_blocks
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.network.checked_copy import (
    checked_copy,
    own_weights,
    reference_of,
    set_weight,
)
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.errors import UnsupportedModelError
from tests.algorithms.two_convs import network

METHODS: dict[str, Callable[[nn.Module], tuple[nn.Module, Any, Any]]] = {
    "dfmpc": lambda model: compress_dfmpc(model, DfmpcConfig(skip=("0",))),
    "dfmpc, the paper's": lambda model: compress_dfmpc(
        model,
        DfmpcConfig(recalibration="norm-ratio", compensation="scalar", scales="paper", skip=("0",)),
    ),
    "udfc": lambda model: compress_udfc(model, UdfcConfig(ratio=0.3)),
    "udfc, skipping": lambda model: compress_udfc(model, UdfcConfig(skip=("3",))),
    "udfc, the paper's": lambda model: compress_udfc(model, UdfcConfig.paper()),
    "udfc, float": lambda model: compress_udfc(model, UdfcConfig(bits=None)),
    "dfmpc, normal variables": lambda model: compress_dfmpc(model, DfmpcConfig(inputs="normal")),
    "blocks": lambda model: compress_blocks(model, BlockConfig(n=4, sparsity=0.5)),
    "blocks, nothing to do": lambda model: compress_blocks(model, BlockConfig(n=4, sparsity=0.0)),
}


def test_a_copy_shares_its_layers_weights_and_nothing_else() -> None:
    given = network()
    copy = checked_copy(given)
    shared = {
        name
        for name, tensor in copy.state_dict().items()
        if tensor.data_ptr() == given.state_dict()[name].data_ptr()
    }
    assert shared == {"0.weight", "3.weight"}


def test_a_weight_that_is_set_is_the_copys_alone() -> None:
    given = network()
    copy, old = checked_copy(given), given[0].weight.clone()
    set_weight(copy[0], torch.zeros_like(old))
    assert torch.equal(given[0].weight, old) and not copy[0].weight.any()


def test_a_weight_that_layers_share_is_set_for_both() -> None:
    given = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    given[1].weight = given[0].weight
    copy = checked_copy(given)
    set_weight(copy[0], torch.ones(4, 4, 1, 1))
    assert copy[0].weight is copy[1].weight and bool((copy[1].weight == 1).all())


def test_weights_of_their_own_end_the_sharing() -> None:
    given = network()
    copy = checked_copy(given)
    own_weights(copy, given)
    assert not _memory(copy) & _memory(given)
    assert all(
        torch.equal(new, old)
        for new, old in zip(copy.parameters(), given.parameters(), strict=True)
    )


def test_the_reference_of_a_network_in_half_precision_keeps_its_weights() -> None:
    given = network().half()
    copy = checked_copy(given)
    reference = reference_of(given, copy)
    set_weight(copy[0], torch.zeros_like(copy[0].weight))
    assert torch.equal(reference[0].weight, given[0].weight.float())


MASKED: dict[str, Callable[[nn.Module], Any]] = {
    "mask": lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
    "weight norm": lambda conv: parametrizations.weight_norm(conv),
}


@pytest.mark.parametrize("how", MASKED)
def test_a_weight_that_is_computed_from_others_is_named_with_what_to_do(how: str) -> None:
    given = network()
    MASKED[how](given[3])
    with pytest.raises(
        UnsupportedModelError,
        match=r"3\.weight is computed .*\nMake it permanent first: torch.nn.utils.prune.remove",
    ):
        checked_copy(given)


def test_a_mask_that_was_made_permanent_is_fine() -> None:
    given = network()
    prune.l1_unstructured(given[3], "weight", 0.5)
    prune.remove(given[3], "weight")
    assert torch.equal(checked_copy(given)[3].weight, given[3].weight)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_the_given_network_as_it_was_and_shares_nothing_with_it(name: str) -> None:
    given = network(filters=8)
    before = {key: tensor.clone() for key, tensor in given.state_dict().items()}
    result, *_ = METHODS[name](given)
    assert all(torch.equal(tensor, before[key]) for key, tensor in given.state_dict().items())
    assert not _memory(result) & _memory(given)
    assert all(bool(tensor.isfinite().all()) for tensor in result.state_dict().values())


def _memory(model: nn.Module) -> set[int]:
    return {
        tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())
    }
