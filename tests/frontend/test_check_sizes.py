"""Modules that ask for more than any machine has: refused before it is taken."""

import pytest
import torch

from subpc.errors import UnsupportedModelError
from subpc.frontend.import_model import import_model
from tests.frontend.small_model import Calls, Function


def doublings(x: torch.Tensor) -> torch.Tensor:
    constant = torch.ones(16)
    for _ in range(30):
        constant = torch.cat([constant, constant])
    return x + constant.sum()


TOO_MUCH: dict[str, Function] = {
    "zeros": lambda x: x + torch.zeros(10**6, 10**6).sum(),
    "expand": lambda x: x + torch.ones(1).expand(10**6, 10**6).sum(),
    "arange": lambda x: x + torch.arange(3 * 10**10).sum(),
    "repeat": lambda x: x + torch.ones(1000).repeat(10**5, 100).sum(),
    "doublings": doublings,
    "an activation": lambda x: x.repeat(1, 1000, 10**4, 10**3).sum(),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_is_refused(what: str) -> None:
    with pytest.raises(UnsupportedModelError, match="elements") as caught:
        import_model(torch.export.export(Calls(TOO_MUCH[what]), (torch.rand(1, 3, 8, 8),)))
    assert len(str(caught.value).splitlines()) == 2


def test_what_networks_compute_is_taken() -> None:
    (imported,) = import_model(
        Calls(lambda x: x + torch.arange(8.0).repeat(8, 1)), shapes=[(1, 3, 8, 8)]
    )
    assert imported.input_shapes == ((1, 3, 8, 8),)
