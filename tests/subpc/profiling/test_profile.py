"""Profiles: rows and shares, the machine's peak, the balance of the workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import subpc
from subpc.library.report import StepInfo
from subpc.machine.target import parse_target
from subpc.machine.threads import available_threads
from subpc.profiling.probes import MachinePeak, ProbeError, Probes, highest
from subpc.profiling.profile import by_layer, measure_imbalance
from subpc.runtime.model import load
from tests.subpc.profile_page.report_input import layer


def step(name: str, flops: int = 10**9) -> StepInfo:
    return StepInfo(layer=name, kernel=f"k_{name}", family="f", flops=flops, bytes=10**8)


@pytest.fixture(scope="module")
def probes() -> Probes:
    return Probes("llvm -mcpu=native", available_threads())


def test_a_row_has_the_layers_decision_and_rates() -> None:
    rows = by_layer(
        [step("a"), step("b"), step("a", 0)],
        [2.0, 1.0, 2.0],
        layers=(layer("a", 16), layer("b", 0)),
    )
    assert [(row.layer, row.ms, row.share) for row in rows] == [("a", 4.0, 0.8), ("b", 1.0, 0.2)]
    assert (rows[0].gflops, rows[0].gbytes, rows[0].intensity) == pytest.approx((250.0, 50.0, 5.0))
    assert (rows[0].decision, rows[0].n, rows[0].sparsity, rows[0].reason) == (
        "sparse",
        16,
        0.5,
        "",
    )
    assert (rows[1].decision, rows[1].n, rows[1].of_peak, rows[1].imbalance) == (
        "dense",
        0,
        None,
        None,
    )


def test_a_layer_is_measured_against_the_peak_of_what_it_computes_in() -> None:
    peak = MachinePeak(
        cpu="",
        threads=1,
        lanes=16,
        gflops=250.0,
        cache_gbytes=1.0,
        memory_gbytes=1.0,
        integer_gops=1000.0,
    )
    integers = replace(layer("a", 16), precision="int8")
    floats = replace(layer("b", 16), why_float="input: not quantized")
    steps, times = [step("a"), step("b"), step("c")], [4.0, 4.0, 4.0]
    rows = by_layer(steps, times, layers=(integers, floats), peak=peak)
    assert [(row.precision, row.of_peak) for row in rows] == [
        ("int8", 0.25),
        ("float32", 1.0),
        ("", 1.0),
    ]
    assert [row.why_float for row in rows] == ["", "input: not quantized", ""]
    # A machine whose peak of bytes is not known.
    (unknown, *_) = by_layer(steps, times, layers=(integers,), peak=replace(peak, integer_gops=0.0))
    assert unknown.of_peak is None


class FakeClock:
    """Worker 1 is busy twice as long as worker 0 in step 1, and nobody is in step 0."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    def run(self, first: int, last: int) -> None:
        self.ran = [*self.ran, *range(first, last)]

    def reset(self) -> None:
        self.ran = []

    def busy(self) -> np.ndarray:
        return np.array([100, 200] if 1 in self.ran else [0, 0])


def test_imbalance_is_the_busiest_worker_over_the_mean() -> None:
    clock = FakeClock()
    assert measure_imbalance(
        [step("serial"), step("parallel")], clock.run, clock, runs=3
    ) == pytest.approx({"parallel": 4 / 3})


def test_the_clock_sees_every_worker_and_leaves_no_trace(probes: Probes, toy: Path) -> None:
    model = load(toy)
    x = np.ones((1, 3, 16, 16), np.float32)
    before = model(x)
    (entry,) = [e for e in model._entries.values() if e.info.inputs[0].shape[0] == 1]
    launcher = entry.library.pointer("__TVMBackendParallelLaunch")
    assert launcher is not None
    original = launcher.value
    with probes.clock(entry.library) as counts:
        assert counts
        assert launcher.value != original
        probes.reset()
        np.testing.assert_array_equal(model(x), before)
        assert (probes.busy() > 0).all()
    assert launcher.value == original
    probes.reset()
    model(x)
    assert not probes.busy().any()


def test_the_peak_is_of_this_machine(probes: Probes) -> None:
    peak = highest([probes.peak(), probes.peak()])
    assert peak.threads == available_threads()
    assert peak.gflops > 1
    dot = parse_target("llvm -mcpu=native").isa.dot
    assert (peak.integer_gops > 1.5 * peak.gflops) == bool(dot)
    assert peak.cache_gbytes > 0
    assert peak.memory_gbytes > 0


def test_without_a_compiler_times_are_left_and_the_reason_is_said(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ProbeError("no linker found")

    monkeypatch.setattr("subpc.profiling.probes._build", fail)
    profile = load(toy).profile(runs=2, warmup=0)
    assert profile.peak is None
    assert profile.notes[-1] == "no machine peak and no thread imbalance: no linker found"
    assert all(row.imbalance is None and row.of_peak is None for row in profile.layers)


def test_profile_measures_machine_and_workers(toy: Path) -> None:
    profile = load(toy).profile(runs=2, warmup=0)
    assert profile.peak is not None
    assert all(
        row.imbalance is not None and 1 <= row.imbalance <= available_threads()
        for row in profile.layers
    )
    assert profile.gap_ms == pytest.approx(profile.steps_ms - profile.total_ms)
    assert type(profile).from_dict(profile.to_dict()) == profile


def test_names_shapes_and_types_of_inputs_and_outputs(toy: Path) -> None:
    model = subpc.load(toy)
    assert (model.input_names, model.output_names) == (("image",), ("scores",))
    assert (model.inputs[0].shape, model.inputs[0].dtype, model.outputs[0].shape) == (
        (1, 3, 16, 16),
        "float32",
        (1, 3, 16, 16),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"photo": 0}, "inputs 'photo' was given, the model takes a dictionary with 'image'"),
        ({}, "the model takes a dictionary with 'image'"),
        ([1], "a list was given"),
        (
            {"image": np.zeros((1, 3, 8, 8), np.float32)},
            r"\(1, 3, 8, 8\) was given, this library takes \(1, 3, 16, 16\)",
        ),
    ],
    ids=["name", "nothing", "list", "shape"],
)
def test_run_refuses_wrong_names_and_shapes_in_one_line(
    toy: Path, given: object, message: str
) -> None:
    with pytest.raises(subpc.ConfigError, match=message) as caught:
        subpc.load(toy).run(given)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
