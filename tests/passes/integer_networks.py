"""Networks of codes from PyTorch to kernels that run, beside what they mean in float64."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import tvm
from torch import nn

from subpc.frontend.import_model import import_model
from subpc.passes.pipeline import Lowered, Rewritten, lower_model, rewrite_model
from subpc.passes.program import WeightStore
from subpc.schedules.isa import AVX512_VNNI, VectorIsa
from tests.passes.integer_meanings import evaluate_exactly
from tests.passes.roundings import Where, everywhere, fitting, with_roundings
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
    where: Where | None = everywhere,
    isa: VectorIsa = AVX512_VNNI,
    sparse: str = "auto",
) -> Rewritten:
    """A network rewritten with the roundings of `where`; None: with those that fit its values."""
    (imported,) = import_model(net.eval(), example_inputs=[torch.rand(s) for s in shapes])

    def quantize(floats: Rewritten) -> tvm.IRModule:
        chosen = where or fitting(floats.module, *_inputs(shapes))
        return with_roundings(floats.module, chosen)

    return rewrite_model(imported, isa=isa, sparse=sparse, quantize=quantize)


def run_network(
    net: nn.Module,
    *shapes: tuple[int, ...],
    where: Where | None = everywhere,
    isa: VectorIsa = AVX512_VNNI,
    sparse: str = "auto",
) -> Network:
    """Rewrite, lower, compile and run a network on values from 0 to 1, twice."""
    rewritten = rewritten_network(net, *shapes, where=where, isa=isa, sparse=sparse)
    weights = WeightStore()
    lowered = lower_model(rewritten, isa=isa, weights=weights)
    inputs = _inputs(shapes)
    wanted = [y.numpy() for y in evaluate_exactly(rewritten.module, *inputs)]
    got = run(lowered.program, weights, [x.numpy() for x in inputs], isa, calls=2)
    return Network(rewritten=rewritten, lowered=lowered, got=got, wanted=wanted)


def _inputs(shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(shape, generator=generator) for shape in shapes]
