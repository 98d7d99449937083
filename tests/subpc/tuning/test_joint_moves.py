"""Joint changes: all layers of one image size at once, raced on the whole network, kept and
recorded only where that is faster."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from subpc.schedules.search_space import is_valid
from subpc.tuned_schedules import database as tuning_db
from subpc.tuning import final_race
from subpc.tuning.build_candidates import Builder
from subpc.tuning.joint_moves import FIELDS, NetworkRuns, moves, search_together
from subpc.tuning.layers import gain
from subpc.tuning.measure import LocalMeasurer, Measured
from subpc.tuning.rounds import Tuner
from tests.subpc.tuning.schedules import machine

OnceMore = Callable[[NetworkRuns], NetworkRuns | None]
NAMES = {name for names in FIELDS for name in names}


@pytest.fixture
def make_tuner(builder: Builder, tmp_path: Path) -> Iterator[Callable[[], Tuner]]:
    made: list[Tuner] = []

    def make() -> Tuner:
        made.append(
            Tuner(
                builder,
                [lambda: LocalMeasurer(1)],
                machine(1),
                tmp_path / "tune.jsonl",
                time.monotonic() + 600,
            )
        )
        return made[-1]

    yield make
    for tuner in made:
        tuner.close()


class Scripted:
    """A machine on which every change makes the network `factor` times as slow, and the second time
    `again` times."""

    def __init__(self, factor: float, again: float | None = None) -> None:
        self.factors = (factor, again or factor)

    def race(
        self,
        best: Measured,
        library: Measured,
        first: NetworkRuns,
        once_more: Callable[[NetworkRuns], NetworkRuns | None],
    ) -> tuple[NetworkRuns, NetworkRuns | None]:
        self.run(best, library, first, self.factors[0])
        second = once_more(first)
        if second is not None:
            self.run(best, library, second, self.factors[1])
        return first, second

    def run(self, best: Measured, library: Measured, whole: NetworkRuns, factor: float) -> None:
        times = 1000.0 + np.arange(40)[:, None]
        whole.add(
            np.repeat(times, len(best.layers), 1), factor * np.repeat(times, len(library.layers), 1)
        )


def test_a_move_changes_one_field_of_all_layers_of_a_size_that_have_it(
    make_tuner: Callable[[], Tuner], builder: Builder
) -> None:
    tuner = make_tuner()
    found = list(moves(tuner.layers))
    assert {move.what.split()[0] for move in found} == {names[0] for names in FIELDS}
    for move in found:
        layers = [tuner.by_key[key] for key in move.schedules]
        assert len(layers) > 1
        assert len({layer.workload.source[1:] for layer in layers}) == 1
        for layer in layers:
            choice = move.schedules[layer.workload.key]
            assert is_valid(choice, layer.workload, builder.target.isa)
            assert choice["family"] == layer.best["family"]
            assert {name for name in choice if choice[name] != layer.best[name]} & NAMES


def test_what_makes_the_whole_network_faster_is_kept_recorded_and_found_again(
    make_tuner: Callable[[], Tuner], tmp_path: Path
) -> None:
    tuner = make_tuner()
    first = next(moves(tuner.layers))
    search_together(tuner, Scripted(0.9), time.monotonic() + 600, trials=1)  # type: ignore[arg-type]
    assert tuner.trials == 1
    assert {key: tuner.by_key[key].best for key in first.schedules} == first.schedules
    assert gain(tuner.layers) == pytest.approx(1 / 0.9, rel=1e-6)
    trials = tuning_db.read(tmp_path / "tune.jsonl").trials
    assert [trial.accepted for trial in trials] == [True] * len(first.schedules)
    assert len({trial.ratio for trial in trials}) == 1
    again = make_tuner()
    assert {key: again.by_key[key].best for key in first.schedules} == first.schedules


@pytest.mark.parametrize("device", [Scripted(1.0), Scripted(1.1), Scripted(0.9, again=1.0)])
def test_what_does_not_or_only_by_luck_is_left(
    make_tuner: Callable[[], Tuner], tmp_path: Path, device: Scripted
) -> None:
    tuner = make_tuner()
    search_together(tuner, device, time.monotonic() + 600, trials=3)  # type: ignore[arg-type]
    assert tuner.trials == 3
    assert not any(layer.tuned for layer in tuner.layers)
    assert not (tmp_path / "tune.jsonl").exists()


@pytest.mark.slow
def test_the_search_tries_them_once_and_goes_on_with_single_layers(
    make_tuner: Callable[[], Tuner], tmp_path: Path
) -> None:
    tuner = make_tuner()
    tuner._together_at = 0.0
    joint = len(list(moves(tuner.layers)))
    tuner.search(joint + 5, None)
    assert tuner.trials >= joint + 5
    report = tuner.finish(None)
    assert report.speedup >= 1.0
    assert len(tuning_db.read(tmp_path / "tune.jsonl").trials) >= 5


@pytest.mark.parametrize("faster", [True, False])
def test_at_the_end_the_network_is_raced_with_and_without_them(
    make_tuner: Callable[[], Tuner], monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    tuner = make_tuner()
    first = next(moves(tuner.layers))
    search_together(tuner, Scripted(0.9), time.monotonic() + 600, trials=1)  # type: ignore[arg-type]
    tuner.apart, raced = {}, []

    def race(
        _: Tuner, device: object, one: dict[str, object], two: dict[str, object]
    ) -> final_race.NetworkTimes:
        raced.append((one, two))
        times, slow = np.full((40, 1), 1000.0), 0.9 if faster else 1.1
        library = tuner.baseline({})
        return final_race.NetworkTimes(
            first=times, second=slow * times, libraries=(library, library)
        )

    monkeypatch.setattr(final_race, "_race", race)
    monkeypatch.setattr(final_race, "_slower", lambda *_: set())
    report = tuner.finish(None)
    assert raced[0] == ({}, first.schedules)
    assert report.tuned == (len(first.schedules) if faster else 0)
