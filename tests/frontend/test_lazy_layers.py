"""Layers whose weights have no shape yet."""

import pytest
import torch
from torch import nn

from subpc.errors import UnsupportedModelError
from subpc.frontend.import_model import import_model


def test_lazy_layers_that_have_seen_no_input_are_refused_by_name() -> None:
    net = nn.Sequential(nn.LazyConv2d(8, 3)).eval()
    with pytest.raises(UnsupportedModelError, match=r"without a shape, such as 0\.weight"):
        import_model(net, example_inputs=torch.rand(1, 3, 8, 8))
