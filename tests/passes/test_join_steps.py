"""Layers joined into one kernel: which runs there are, what becomes of the program, and that the
network computes what it did."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from subpc.compiler import compile_model
from subpc.compiler.compile_model import compile
from subpc.compiler.describe_library import JOINED
from subpc.machine.target import parse_target
from subpc.passes.join_steps import joinable
from subpc.passes.pipeline import Lowered, Rewritten, lower_model
from subpc.passes.program import WeightStore
from subpc.runtime.model import CompiledModel
from subpc.schedules.joined import Joined
from subpc.schedules.workload import Choice
from tests.subpc.tuning.schedules import NATIVE, machine, prune, write_choices

TOLERANCE = 1e-5
SIDE = 12


class Inverted(nn.Module):
    """An inverted residual: expansion, depthwise convolution, projection, and the input added where
    the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.expand, self.project = nn.Conv2d(inputs, hidden, 1), nn.Conv2d(hidden, outputs, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden)
        self.residual = stride == 1 and inputs == outputs
        for layer in (self.expand, self.project):
            prune(layer, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(nn.functional.relu6(self.depthwise(nn.functional.relu6(self.expand(x)))))
        return x + y if self.residual else y


class Bottleneck(nn.Module):
    """A residual block whose result two others read; 5x5, because a 3x3 goes to Winograd's kernel,
    which is not joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = nn.Conv2d(channels, 16, 1), nn.Conv2d(16, channels, 1)
        self.conv2 = nn.Conv2d(16, 16, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x))))))


def mobile() -> nn.Module:
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(
        *stem, Inverted(16, 24, 2), Inverted(24, 24, 1), Inverted(24, 24, 1), nn.Flatten()
    ).eval()


def residual() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), Bottleneck(32), Bottleneck(32), Bottleneck(32)
    ).eval()


def example(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@functools.cache
def rewritten(make: Callable[[], nn.Module], batch: int = 1) -> Rewritten:
    """The network as the choice of schedules sees it."""
    options = {
        "shapes": None,
        "arch": None,
        "trust_pickle": False,
        "isa": parse_target(NATIVE).isa,
        "sparse": "always",
    }
    (found,) = compile_model.rewritten(make(), example(batch), **options)  # type: ignore[arg-type]
    return found


def lowered(model: Rewritten, choices: Mapping[str, Choice] | None = None) -> Lowered:
    return lower_model(model, isa=parse_target(NATIVE).isa, weights=WeightStore(), choices=choices)


def joined_choices(model: Rewritten, joined: int, bands: int) -> dict[str, Choice]:
    """The default schedules, joined wherever a run begins; whose tasks share the loop is of no
    account then."""
    plain = lowered(model)
    names = [name for name, most in joinable(plain.program).items() if most >= joined]
    changes: Choice = {"joined": joined, "bands": bands}
    return {
        name: plain.choices[name]
        | changes
        | ({"blocks": 1} if "blocks" in plain.choices[name] else {})
        for name in names
    }


def compiled(
    make: Callable[[], nn.Module], choices: dict[str, Choice], folder: Path, batch: int = 1
) -> CompiledModel:
    """Compiled with these schedules."""
    database = folder / "tune.jsonl"
    write_choices(database, rewritten(make, batch), choices, machine())
    return compile(make(), example(batch), tuning=database, threads=2, sparse="always")


def test_runs_of_inverted_residuals() -> None:
    program = lowered(rewritten(mobile)).program
    assert joinable(program) == {f"{block}.expand": 2 for block in (2, 3, 4)}


def test_runs_of_bottlenecks() -> None:
    """The layer after a block begins the next one, and goes with it; the block's result is wanted
    by the next block's sum, too."""
    program = lowered(rewritten(residual)).program
    assert joinable(program) == {"0": 1, "2.conv2": 2, "3.conv2": 2, "4.conv2": 1}


def test_results_that_nobody_else_reads_need_no_memory() -> None:
    model = rewritten(mobile)
    plain, together = lowered(model).program, lowered(model, joined_choices(model, 2, 3)).program
    assert [step.layer for step in together.steps] == [step.layer for step in plain.steps]
    kernels = [step for step in together.steps if isinstance(step.kernel, Joined)]
    assert [(step.layer, step.kernel.kept, step.kernel.bands) for step in kernels] == [  # type: ignore[attr-defined]
        (f"{block}.expand", (False, False, True), 3) for block in (2, 3, 4)
    ]
    assert len(together.calls) == len(plain.calls) - 2 * len(kernels)
    touched = {
        operand.index
        for step in together.steps
        for operand in step.operands
        if operand.space == "workspace"
    }
    expanded = [
        step.operands[-1].index
        for step in plain.steps
        if step.layer.endswith(("expand", "depthwise"))
    ]
    assert touched.isdisjoint(expanded)


def test_a_result_that_others_read_is_kept() -> None:
    model = rewritten(residual)
    kernels = [
        s.kernel
        for s in lowered(model, joined_choices(model, 2, 4)).program.steps
        if isinstance(s.kernel, Joined)
    ]
    assert [kernel.kept for kernel in kernels] == [(False, True, True)] * 2


def test_bands_that_do_not_divide_the_rows_join_nothing() -> None:
    model = rewritten(mobile)
    choices = joined_choices(model, 2, 4)  # 6 rows
    assert not any(
        isinstance(step.kernel, Joined) for step in lowered(model, choices).program.steps
    )


@pytest.mark.parametrize(("joined", "bands", "batch"), [(1, 2, 1), (1, 3, 2), (2, 2, 2), (2, 3, 1)])
def test_inverted_residuals_compute_what_they_did(
    joined: int, bands: int, batch: int, tmp_path: Path
) -> None:
    """The last projection's sum is not taken in place any more: another band still reads the rows
    that it would overwrite."""
    choices = joined_choices(rewritten(mobile, batch), joined, bands)
    check(compiled(mobile, choices, tmp_path, batch), mobile(), batch, 3 * joined)


@pytest.mark.parametrize(("joined", "bands", "count"), [(1, 3, 4), (2, 4, 5), (2, 6, 5)])
def test_bottlenecks_compute_what_they_did(
    joined: int, bands: int, count: int, tmp_path: Path
) -> None:
    """Equal layers share a schedule: the last block, which has one layer less to be joined, joins
    the one that it has."""
    check(
        compiled(residual, joined_choices(rewritten(residual), joined, bands), tmp_path),
        residual(),
        1,
        count,
    )


def check(library: CompiledModel, model: nn.Module, batch: int, joined: int) -> None:
    """Joined layers are named in the report, and the outputs are PyTorch's, again and again."""
    steps = library.report.metadata.functions[0].steps
    assert sum(step.family == JOINED for step in steps) == joined
    assert all(step.flops == 0 and step.bytes == 0 for step in steps if step.family == JOINED)
    with torch.no_grad():
        for seed in range(3):
            x = torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
            expected = model(x)
            assert float((library(x) - expected).abs().max() / expected.abs().max()) < TOLERANCE


def test_a_profile_has_all_layers_and_the_work_once(tmp_path: Path) -> None:
    together = compiled(mobile, joined_choices(rewritten(mobile), 2, 3), tmp_path)
    plain = compile(mobile(), example(), tuning="off", threads=2, sparse="always")
    steps = [library.report.metadata.functions[0].steps for library in (together, plain)]
    assert [step.layer for step in steps[0]] == [step.layer for step in steps[1]]
    assert sum(step.flops for step in steps[0]) == sum(step.flops for step in steps[1])
    assert [step.result is None for step in steps[0] if step.layer.startswith("3.")] == [
        True,
        True,
        False,
    ]
    profile = together.profile(runs=2, warmup=1, probes=False)
    assert {row.family for row in profile.layers if row.layer.endswith("project")} == {JOINED}


def test_a_kernel_keeps_its_own_schedule_in_a_joined_one() -> None:
    model = rewritten(mobile)
    choices = joined_choices(model, 2, 3)
    narrow = {"2.depthwise": lowered(model).choices["2.depthwise"] | {"rows": 4}}
    program = lowered(model, choices | narrow).program
    (kernel,) = [step.kernel for step in program.steps if step.layer == "2.expand"]
    assert isinstance(kernel, Joined)
    assert kernel.stages[1].tile.rows == 4
    assert replace(kernel, bands=6) != kernel
