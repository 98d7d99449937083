"""Networks as calibration gets them: rewritten, in floats."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from subpc.frontend.import_model import import_model
from subpc.passes.norm_statistics import Norm
from subpc.passes.pipeline import Rewritten, rewrite_model
from subpc.schedules.isa import AVX512


def rewritten(
    net: nn.Module, *shape: int, norms: dict[str, Norm] | None = None, **options: Any
) -> Rewritten:
    """The network after all passes on floats."""
    (imported,) = import_model(net.eval(), example_inputs=torch.zeros(shape), **options)
    network = rewrite_model(imported, isa=AVX512, sparse="off")
    return network if norms is None else replace(network, norms=norms)
