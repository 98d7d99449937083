"""The guided search over one workload's schedules: optuna's tree-structured Parzen estimator, asked
and told."""

import math
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from subpc.tuned_schedules.record import workload_key

if TYPE_CHECKING:
    import optuna

    from subpc.schedules.workload import Choice, ConvWorkload

# Random proposals before the estimator has something to estimate from.
STARTUP = 10
# Proposals that turn out to be known before a random new one is taken.
MAX_REPEATS = 20
# Fields that make a register tile, and how many tiles of a family are tried before the search
# proper.
TILE_FIELDS, FIRST_TILES = ("rows", "vectors", "columns", "tail"), 4


class Search:
    """Proposes schedules that have not been measured. `known` and `tell` say what was measured,
    ratio None: it failed."""

    def __init__(self, space: "Sequence[Choice]", seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = list(space)
        self._sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, constant_liar=True
        )
        self._study = optuna.create_study(sampler=self._sampler)
        self._random = random.Random(seed)
        self._seen: set[str] = set()
        self._queue: list[Choice] = []
        self._open: dict[str, optuna.trial.Trial] = {}

    @property
    def measured(self) -> int:
        """How many schedules have been proposed or were known."""
        return len(self._seen)

    def enqueue(self, choices: "Iterable[Choice]") -> None:
        """Propose these first."""
        self._queue += [choice for choice in choices if choice in self.space]

    def propose(self) -> "Choice | None":
        """A schedule to be measured next, None if all have been."""
        while self._queue:
            choice = self._queue.pop(0)
            if workload_key(choice) not in self._seen:
                return self._propose(choice, None)
        for _ in range(MAX_REPEATS):
            trial = self._study.ask()
            choice = self._walk(trial)
            if workload_key(choice) not in self._seen:
                return self._propose(choice, trial)
            self._study.tell(trial, state=self._state("FAIL"))
        rest = [choice for choice in self.space if workload_key(choice) not in self._seen]
        return self._propose(self._random.choice(rest), None) if rest else None

    def _propose(self, choice: "Choice", trial: "optuna.trial.Trial | None") -> "Choice":
        key = workload_key(choice)
        self._seen.add(key)
        if trial is not None:
            self._open[key] = trial
        return choice

    def tell(self, choice: "Choice", ratio: float | None) -> None:
        """The outcome of a proposal, or of a measurement of an earlier run."""
        import optuna

        key = workload_key(choice)
        self._seen.add(key)
        trial = self._open.pop(key, None)
        if trial is not None:
            self._study.tell(
                trial,
                math.log(ratio) if ratio else None,
                state=self._state("COMPLETE" if ratio else "FAIL"),
            )
        elif ratio is not None and choice in self.space:
            path = self._path(choice)
            params, kinds = (
                {name: index for name, _, index in path},
                {name: kind for name, kind, _ in path},
            )
            self._study.add_trial(
                optuna.trial.create_trial(params=params, distributions=kinds, value=math.log(ratio))
            )

    def give_back(self, choice: "Choice") -> None:
        """A proposal that could not be measured is proposed again."""
        key = workload_key(choice)
        self._seen.discard(key)
        self._queue.insert(0, choice)
        trial = self._open.pop(key, None)
        if trial is not None:
            self._study.tell(trial, state=self._state("FAIL"))

    def _state(self, name: str) -> Any:
        import optuna

        return optuna.trial.TrialState[name]

    def _walk(self, trial: "optuna.trial.Trial") -> "Choice":
        """One field after the other: each offers the values that the choices so far leave."""
        left = self.space
        for field in _fields(self.space):
            values = _values(left, field)
            if len(values) > 1:
                name, kind = _axis(left, field, values)
                value = values[_suggest(trial, name, kind)]
            else:
                value = values[0]
            left = [choice for choice in left if choice.get(field) == value]
        return left[0]

    def _path(self, choice: "Choice") -> list[tuple[str, Any, int]]:
        """(axis, distribution, index) of each field of a choice, as `_walk` would meet them."""
        left, path = self.space, []
        for field in _fields(self.space):
            values = _values(left, field)
            if len(values) > 1:
                name, kind = _axis(left, field, values)
                path.append((name, kind, values.index(choice.get(field))))
            left = [other for other in left if other.get(field) == choice.get(field)]
        return path


def _fields(space: "Sequence[Choice]") -> list[str]:
    return list(dict.fromkeys(field for choice in space for field in choice))


def _values(choices: "Sequence[Choice]", field: str) -> list[Any]:
    return list(dict.fromkeys(choice.get(field) for choice in choices))


def _axis(left: "Sequence[Choice]", field: str, values: Sequence[Any]) -> tuple[str, Any]:
    """Fields of one family that offer the same values are one axis, so that what was learnt for one
    tile serves the others."""
    import optuna

    name = f"{left[0]['family'] if field != 'family' else ''}.{field}:{','.join(map(str, values))}"
    ordered = all(type(value) is int for value in values)
    kind: Any = optuna.distributions.IntDistribution(0, len(values) - 1)
    return name, kind if ordered else optuna.distributions.CategoricalDistribution(
        range(len(values))
    )


def variations(choice: "Choice", space: "Sequence[Choice]") -> "list[Choice]":
    """What to try first: every way to compute layers together, for the most can be gained there;
    the cheapest register tiles of each family, all else as near as can be; then one field changed
    to its next lower and higher value."""
    found = []
    for field in choice:
        alike = [
            other
            for other in space
            if all(other.get(f) == v for f, v in choice.items() if f != field) and other != choice
        ]
        ordered = sorted(alike, key=lambda other: difference(other, choice))
        found += [other for other in ordered if _order(other[field]) < _order(choice[field])][:1]
        found += [other for other in ordered if _order(other[field]) > _order(choice[field])][:1]
    return [*_together(choice, space), *_cheapest(choice, space), *found]


def _cheapest(choice: "Choice", space: "Sequence[Choice]") -> "list[Choice]":
    """For the first tiles of each family, which its space puts in the order of their cost: what
    differs least from `choice` otherwise."""
    by_tile: dict[tuple[Any, ...], list[Choice]] = {}
    for other in space:
        by_tile.setdefault(
            (other["family"], *(other.get(field) for field in TILE_FIELDS)), []
        ).append(other)
    found: list[Choice] = []
    for family in dict.fromkeys(tile[0] for tile in by_tile):
        tiles = [alike for tile, alike in by_tile.items() if tile[0] == family][:FIRST_TILES]
        found += [min(alike, key=lambda other: difference(other, choice)) for alike in tiles]
    return [other for other in found if other != choice]


def _together(choice: "Choice", space: "Sequence[Choice]") -> "list[Choice]":
    """For every number of layers that are computed together, and of bands, the nearest schedule."""
    ways: dict[tuple[Any, Any], list[Choice]] = {}
    for other in space:
        if other.get("joined"):
            ways.setdefault((other["joined"], other["bands"]), []).append(other)
    return [min(alike, key=lambda other: difference(other, choice)) for alike in ways.values()]


def _order(value: int | str) -> float:
    return float(value) if not isinstance(value, str) else 0.0


def _suggest(trial: "optuna.trial.Trial", name: str, kind: Any) -> int:
    import optuna

    if isinstance(kind, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high)
    return int(trial.suggest_categorical(name, kind.choices))


def nearest(
    workload: "ConvWorkload",
    known: "Iterable[tuple[ConvWorkload, Choice]]",
    space: "Sequence[Choice]",
) -> "Choice | None":
    """The schedule of the most similar workload, or what comes closest to it in this workload's
    space."""
    rated = [
        (_distance(workload, other), index, choice) for index, (other, choice) in enumerate(known)
    ]
    if not rated:
        return None
    wanted = min(rated, key=lambda entry: entry[:2])[2]
    return min(space, key=lambda choice: difference(choice, wanted), default=None)


def _distance(a: "ConvWorkload", b: "ConvWorkload") -> float:
    """How unlike two workloads are: octaves in every size, and much more for another kind of
    convolution."""
    sizes = [
        (a.batch, b.batch),
        (a.kept, b.kept),
        (a.n or 1, b.n or 1),
        *zip(a.source, b.source, strict=True),
    ]
    sizes += [*zip(a.out, b.out, strict=True)]
    kinds = sum(
        x != y
        for x, y in (
            (a.kernel, b.kernel),
            (a.stride, b.stride),
            (a.flat, b.flat),
            (bool(a.n), bool(b.n)),
        )
    )
    return sum(abs(math.log2(x / y)) for x, y in sizes) + 10.0 * kinds


def difference(a: "Choice", b: "Choice") -> float:
    """How unlike two schedules are."""
    total = 0.0
    for field in {*a, *b}:
        x, y = a.get(field), b.get(field)
        # Booleans are integers to isinstance, and are no sizes.
        if isinstance(x, int) and isinstance(y, int) and bool not in (type(x), type(y)):
            total += min(1.0, abs(math.log2((x + 1) / (y + 1))))
        else:
            total += float(x != y) * (4.0 if field == "family" else 1.0)
    return total
