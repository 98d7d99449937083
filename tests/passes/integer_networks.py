"""Networks of codes from PyTorch to kernels that run, beside what they mean in float64."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from subpc.frontend.import_model import import_model
from subpc.passes.pipeline import Lowered, Rewritten, lower_model, rewrite_model
from subpc.passes.program import WeightStore
from subpc.schedules.isa import AVX512_VNNI, VectorIsa
from tests.passes.integer_meanings import evaluate_exactly
from tests.passes.roundings import Where, everywhere, with_roundings
from tests.passes.small_graphs import run


@dataclass(frozen=True, kw_only=True)
class Network:
    """A lowered network, its outputs, and what they should be."""

    rewritten: Rewritten
    lowered: Lowered
    got: list[np.ndarray]
    wanted: list[np.ndarray]


def rewritten_network(
    net: nn.Module,
    *shapes: tuple[int, ...],
    where: Where = everywhere,
    isa: VectorIsa = AVX512_VNNI,
    sparse: str = "auto",
) -> Rewritten:
    """A network rewritten with the roundings of `where`."""
    (imported,) = import_model(net.eval(), example_inputs=[torch.rand(s) for s in shapes])

    def quantize(floats: Rewritten) -> object:
        return with_roundings(floats.module, where)

    return rewrite_model(imported, isa=isa, sparse=sparse, quantize=quantize)  # type: ignore[arg-type]


def run_network(
    net: nn.Module,
    *shapes: tuple[int, ...],
    where: Where = everywhere,
    isa: VectorIsa = AVX512_VNNI,
    sparse: str = "auto",
) -> Network:
    """Rewrite, lower, compile and run a network on values from 0 to 1."""
    rewritten = rewritten_network(net, *shapes, where=where, isa=isa, sparse=sparse)
    weights = WeightStore()
    lowered = lower_model(rewritten, isa=isa, weights=weights)
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.rand(shape, generator=generator) for shape in shapes]
    wanted = [y.numpy() for y in evaluate_exactly(rewritten.module, *inputs)]
    got = run(lowered.program, weights, [x.numpy() for x in inputs], isa)
    return Network(rewritten=rewritten, lowered=lowered, got=got, wanted=wanted)
