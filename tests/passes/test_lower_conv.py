"""Which kernel a convolution gets: by rule, by a recorded schedule, and where a schedule does not
fit."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from tvm import relax

from subpc.compiler.compile_model import rewritten
from subpc.passes.lower import Lowering
from subpc.passes.lower_conv import RULES
from subpc.passes.lower_flat import lower_flat
from subpc.passes.pipeline import Lowered, Rewritten, lower_model
from subpc.passes.plan_winograd import winograd_estimate
from subpc.passes.program import WeightStore
from subpc.schedules import families
from subpc.schedules.choose_flat import FLAT
from subpc.schedules.isa import AVX512, VectorIsa
from subpc.schedules.search_space import is_valid, search_space
from subpc.schedules.workload import Choice, ConvWorkload
from tests.passes.test_end_to_end import prune_blocks

# The kernel's transform reads past the rows of this plane: without padding it has no halo that
# would hold what lies there.
WIDE = (1, 32, 203, 203)


def rewrite(layer: nn.Conv2d, shape: tuple[int, ...]) -> Rewritten:
    torch.manual_seed(0)
    options: dict[str, Any] = {"shapes": None, "arch": None, "trust_pickle": False}
    (found,) = rewritten(layer.eval(), torch.zeros(shape), isa=AVX512, sparse="always", **options)
    return found


def lower(model: Rewritten, choice: Choice | None = None) -> Lowered:
    choices = {layer: choice for layer in model.workloads if choice is not None}
    return lower_model(model, isa=AVX512, weights=WeightStore(), choices=choices)


def schedules(model: Rewritten, family: str) -> Iterator[Choice]:
    (workload,) = model.workloads.values()
    return (choice for choice in search_space(workload, AVX512) if choice["family"] == family)


def test_recorded_schedules_of_every_family_are_used() -> None:
    model = rewrite(nn.Conv2d(32, 32, 3, padding=1), (1, 32, 14, 14))
    for family in ("flat", "direct", "winograd"):
        choice = [*schedules(model, family)][-1]
        assert [*lower(model, choice).choices.values()] == [choice]


def test_a_recorded_winograd_schedule_that_does_not_fit_its_plane_gives_way_to_the_default() -> (
    None
):
    """Records are checked without the frames of a network, which are not known before all its
    layers are."""
    model = rewrite(nn.Conv2d(32, 32, 3), WIDE)
    default = lower(model)
    (workload,) = model.workloads.values()
    recorded = next(schedules(model, "winograd"))
    assert is_valid(recorded, workload, AVX512)
    lowered = lower(model, recorded)
    assert lowered.choices == default.choices
    assert [step.kernel for step in lowered.program.steps] == [
        step.kernel for step in default.program.steps
    ]


def test_what_winograd_gains_is_estimated_once() -> None:
    """For the layer with and without its pattern when the kernels are compared, and not again when
    they are chosen."""
    layer = nn.Conv2d(32, 32, 3, padding=1)
    prune_blocks(layer.weight, 16, 0.5)
    winograd_estimate.cache_clear()
    lowered = lower(rewrite(layer, (1, 32, 28, 28)))
    assert [decision.kernel for decision in lowered.decisions.values()] == ["bsr_conv"]
    assert winograd_estimate.cache_info().misses == 2
    assert winograd_estimate.cache_info().hits == 1


def test_every_family_has_a_rule() -> None:
    assert set(RULES) == {family.name for family in families.FAMILIES}


def test_a_new_family_is_one_line_in_each_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its schedules are offered, accepted, and lowered by its rule; nothing else has to know it."""
    seen = []

    def takes(workload: ConvWorkload, filters: int, isa: VectorIsa) -> bool:
        return workload.kernel == (1, 1)

    def rule(low: Lowering, var: relax.Var, call: relax.Call) -> None:
        seen.append(low.tuned("0", new))
        lower_flat(low, var, call)

    new = replace(FLAT, name="new", takes=takes)
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, new))
    monkeypatch.setitem(RULES, "new", rule)
    model = rewrite(nn.Sequential(nn.Conv2d(8, 8, 1)), (1, 8, 6, 6))
    choice = next(schedules(model, "new"))
    (workload,) = model.workloads.values()
    assert is_valid(choice, workload, AVX512)
    lower(model, choice)
    assert [tile.rows for tile in seen if tile is not None] == [choice["rows"]]
    assert [*schedules(rewrite(nn.Sequential(nn.Conv2d(8, 8, 3)), (1, 8, 6, 6)), "new")] == []
