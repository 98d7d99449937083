"""The search itself: rounds of candidates for several layers, each built, raced inside the network,
judged and recorded."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subpc.errors import TuningError
from subpc.tuned_schedules.record import Machine, workload_key
from subpc.tuning.build_candidates import Builder
from subpc.tuning.device import Device, run_in_turns
from subpc.tuning.final_race import finish
from subpc.tuning.joint_moves import AFTER, UNTIL, search_together
from subpc.tuning.layers import TunedLayer, by_layer, find_neighbours, gain, next_round, window
from subpc.tuning.measure import DeviceLost, Measurer
from subpc.tuning.outcomes import CandidateRound, Outcome
from subpc.tuning.report import ShowProgress, TuneProgress, TuneReport
from subpc.tuning.session import TuningSession

if TYPE_CHECKING:
    from subpc.schedules.workload import Choice

# Layers that get a candidate in one round: enough to share the cost of linking, few enough that one
# is soon judged.
ROUND = 12
# Baselines kept for each machine: the newest ones may still be read.
KEPT = 3
# Machines that may be lost with one candidate.
MAX_LOSSES = 2
# Share of the budget kept for the race of the whole network, in seconds between these.
FINAL_SHARE, FINAL_SECONDS = 0.1, (3.0, 60.0)


class Tuner(TuningSession):
    """Search for one network on one or several devices."""

    def __init__(
        self,
        builder: Builder,
        devices: "Sequence[Callable[[], Measurer]]",
        machine: Machine,
        database: Path,
        deadline: float,
    ) -> None:
        super().__init__(builder, machine, database, deadline, kept=KEPT * len(devices))
        self._losses: dict[str, int] = {}
        self._devices = [Device(self, connect) for connect in devices]
        self._together_at = self.started + AFTER * (deadline - self.started)
        self._profile()

    def _profile(self) -> None:
        """Each workload's share of the untuned network's time."""
        library = self.baseline({})
        device = self._devices[0]
        a, b = device.run(lambda m: run_in_turns(m, library, library, 5), tries=len(self._devices))
        self.total_ns = float(np.median(np.concatenate([a.sum(axis=1), b.sum(axis=1)])))
        find_neighbours(self.layers, library.layers, self.joinable)
        times = by_layer(np.concatenate([a, b]), library.layers)
        for layer in self.layers:
            own = float(np.median(window(layer, times, alone=True)))
            layer.share, layer.microseconds = own / self.total_ns, own / 1000 / len(layer.layers)

    def search(self, trials: int | None, progress: "ShowProgress | None") -> None:
        """Rounds until the budget, the trials or all schedules are used up."""
        reserve = min(
            max(FINAL_SHARE * (self.deadline - self.started), FINAL_SECONDS[0]), FINAL_SECONDS[1]
        )
        with ThreadPoolExecutor(len(self._devices)) as pool:
            running: dict[Future[dict[str, Outcome]], tuple[Device, CandidateRound]] = {}
            try:
                while True:
                    self._tell("searching", progress)
                    searching = time.monotonic() < self.deadline - reserve
                    together = searching and time.monotonic() >= self._together_at
                    if together and not running:
                        self._search_together(trials, progress)
                        continue
                    for device in self._idle(running):
                        entry = self._ask(trials) if searching and not together else None
                        if entry is not None:
                            running[pool.submit(device.measure, entry)] = (device, entry)
                    if not running and searching and self._together_at < math.inf:
                        self._together_at = 0.0  # single layers have nothing left
                        continue
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._collect(future, *running.pop(future))
            finally:
                for device in self._devices if running else ():
                    device.close()  # whoever waits for an answer gets an error now

    def _search_together(self, trials: int | None, progress: "ShowProgress | None") -> None:
        """Joint changes, once, on one machine."""
        self._tell("searching, several layers at once", progress)
        self._together_at, device = math.inf, self.final_device()
        self.apart = {layer.workload.key: layer.best for layer in self.layers if layer.tuned}
        try:
            search_together(
                self, device, self.started + UNTIL * (self.deadline - self.started), trials
            )
        except DeviceLost as error:
            device.lost = str(error)

    def _idle(
        self, running: "dict[Future[dict[str, Outcome]], tuple[Device, CandidateRound]]"
    ) -> "list[Device]":
        busy = [device for device, _ in running.values()]
        idle = [device for device in self._devices if device not in busy and not device.lost]
        if not idle and not busy:
            raise TuningError(
                f"no machine is left to measure on ({self._devices[-1].lost}); records are kept in"
                f" {self.database}\nStart the servers again and repeat the command: it goes on"
                " where it was."
            )
        return idle

    def _collect(
        self, future: "Future[dict[str, Outcome]]", device: "Device", entry: CandidateRound
    ) -> None:
        """Record a round's outcomes; the candidates of a lost machine are proposed again."""
        try:
            outcomes = future.result()
        except DeviceLost as error:
            device.lost = str(error)
            for key, choice in entry.candidates.items():
                self._after_loss(self.by_key[key], choice, str(error))
            return
        for key, outcome in outcomes.items():
            self.record(self.by_key[key], outcome, entry.ratios[key])

    def _after_loss(self, layer: TunedLayer, choice: "Choice", error: str) -> None:
        """Propose a lost machine's candidate again; one that has lost two machines may be what ends
        them, and is given up."""
        name = workload_key({"workload": layer.workload.key, **choice})
        self._losses[name] = self._losses.get(name, 0) + 1
        if self._losses[name] < MAX_LOSSES:
            layer.search.give_back(choice)
            self.trials -= 1
        else:
            self.record(layer, Outcome(choice=choice, error=error), 1.0)

    def _ask(self, trials: int | None) -> CandidateRound | None:
        """The next candidates, None if there are none."""
        room = ROUND if trials is None else min(ROUND, trials - self.trials)
        candidates: dict[str, Choice] = {}
        while room > 0 and not candidates:
            turn = next_round(self.layers, room)
            if not turn:
                return None
            for layer in turn:
                choice = layer.search.propose()
                layer.exhausted = choice is None
                if choice is not None:
                    candidates[layer.workload.key] = choice
        if not candidates:
            return None
        self.trials += len(candidates)
        keys = list(candidates)
        best = {layer.workload.key: layer.best for layer in self.layers}
        return CandidateRound(
            candidates=candidates, best=best, ratios={key: self.by_key[key].ratio for key in keys}
        )

    def finish(self, progress: "ShowProgress | None") -> "TuneReport":
        """Race the whole network, tuned against untuned; drop what does not help; write the
        verdict."""
        self._tell("racing the whole network", progress)
        return finish(self, self.final_device())

    def final_device(self) -> "Device":
        """A machine for the last race."""
        return next((device for device in self._devices if not device.lost), self._devices[0])

    def _tell(self, what: str, progress: "ShowProgress | None") -> None:
        if progress is None:
            return
        counts = {
            "done": sum(layer.done for layer in self.layers),
            "layers": len(self.layers),
            "trials": self.trials,
        }
        failures, left = (
            sum(layer.failures for layer in self.layers),
            max(0.0, self.deadline - time.monotonic()),
        )
        progress(
            TuneProgress(
                what=what, seconds_left=left, failures=failures, gain=gain(self.layers), **counts
            )
        )

    def close(self) -> None:
        """End the measuring processes."""
        for device in self._devices:
            device.close()
