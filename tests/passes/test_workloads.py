"""Tuned schedules in the whole compile: every valid candidate computes what PyTorch computes."""

import random
from pathlib import Path

import pytest
import torch

from subpc.compiler.compile_model import compile
from subpc.machine.target import parse_target
from subpc.passes.pipeline import lower_model
from subpc.passes.program import WeightStore
from subpc.schedules.search_space import search_space
from tests.subpc.tuning.schedules import NATIVE, example, machine, network, small_net, write_choices

TOLERANCE = 1e-4


@pytest.mark.parametrize("target", [NATIVE, "llvm -mcpu=haswell", "llvm"])
def test_defaults_are_in_the_space(target: str) -> None:
    isa, model = parse_target(target).isa, network(target=target)
    lowered = lower_model(model, isa=isa, weights=WeightStore())
    assert set(lowered.choices) == set(model.workloads)
    for layer, choice in lowered.choices.items():
        assert choice in search_space(model.workloads[layer], isa), layer


def test_default_choices_change_nothing() -> None:
    isa, model = parse_target(NATIVE).isa, network()
    plain = lower_model(model, isa=isa, weights=WeightStore())
    again = lower_model(model, isa=isa, weights=WeightStore(), choices=plain.choices)
    assert again.choices == plain.choices
    assert again.decisions == plain.decisions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "batch", "target"),
    [(0, 1, NATIVE), (1, 2, NATIVE), (2, 1, NATIVE), (3, 2, "llvm -mcpu=haswell")],
)
def test_random_candidates_equal_pytorch(
    tmp_path: Path, seed: int, batch: int, target: str
) -> None:
    model, isa, rng = (
        network(batch, target),
        parse_target(target).isa,
        random.Random(f"{seed} {batch}"),
    )
    choices = {}
    for layer, workload in model.workloads.items():
        space = search_space(workload, isa)
        family = rng.choice(sorted({str(choice["family"]) for choice in space}))
        choices[layer] = rng.choice([choice for choice in space if choice["family"] == family])
    write_choices(tmp_path / "tune.jsonl", model, choices, machine(target=target))
    compiled = compile(
        small_net(), example(batch), target=target, tuning=tmp_path / "tune.jsonl", threads=2
    )
    with torch.no_grad():
        expected = small_net()(example(batch))
    assert (
        float((compiled(example(batch)) - expected).abs().max() / expected.abs().max()) < TOLERANCE
    ), choices
    assert compiled.report.metadata.tuned
