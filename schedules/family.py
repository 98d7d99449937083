"""What the tuner, and whoever reads its records, has to know about a family of convolution
kernels."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from subpc.schedules.block_conv import MAX_PREFETCH_CHANNELS, PREFETCH_CHANNELS
from subpc.schedules.isa import VectorIsa
from subpc.schedules.workload import Choice, ConvWorkload, tile_fields

# How a family is called where it ignores the pattern of the weights.
DENSE = "dense "
# A register tile that a family's cost model rates this much dearer than its best one is left out.
MAX_COST = 1.5
PREFETCHES = (0, 6, PREFETCH_CHANNELS, MAX_PREFETCH_CHANNELS)
ORDERS = (False, True)
# Layers after this one that are computed with it, and in how many bands of rows: few enough to
# leave each of them some rows.
JOINED, BANDS, MIN_BAND, JOINED_PREFETCHES = (1, 2), range(2, 33), 2, (0, PREFETCH_CHANNELS)
Tile = TypeVar("Tile")
Rated = TypeVar("Rated", tuple[float, int, int, bool], tuple[float, int, int, int])


@dataclass(frozen=True, kw_only=True)
class Filters:
    """group: output channels that share their input channels; kept: input channels that each of
    them reads, on average."""

    group: int
    kept: float


@dataclass(frozen=True, kw_only=True)
class Family(Generic[Tile]):
    """A kind of kernel.

    name: in schedules. tile: the dataclass of its schedules. takes: whether it computes a workload
    whose filters come in such groups.
    tiles: every valid schedule, the cheapest register tiles first.
    patterns: whether it skips zero blocks, and may be told to ignore them. sorts_strides: a strided
    convolution's pixels have to be sorted by phase before it can read them. precision: what it
    computes in, as workloads name it.
    """

    name: str
    tile: type[Tile]
    takes: Callable[[ConvWorkload, int, VectorIsa], bool]
    tiles: Callable[[ConvWorkload, Filters, VectorIsa], Iterator[Tile]]
    patterns: bool = True
    sorts_strides: bool = False
    precision: str = "float32"

    def tile_of(self, choice: Choice | None) -> Tile | None:
        """The tile that a recorded schedule describes, None if it is one for other kernels, or
        there is none."""
        if choice is None or str(choice["family"]).removeprefix(DENSE) != self.name:
            return None
        return self.tile(**tile_fields(choice))


def ignores_pattern(choice: Choice) -> bool:
    """Whether a schedule wants the dense kernel for weights with zero blocks."""
    return str(choice["family"]).startswith(DENSE)


def ignoring_pattern(choice: Choice) -> Choice:
    """The same schedule for the dense kernel."""
    return {**choice, "family": f"{DENSE}{choice['family']}"}


def affordable(tiles: list[Rated]) -> list[Rated]:
    """Tiles whose cost is not far from the least, the cheapest first."""
    least = min((tile[0] for tile in tiles), default=0.0)
    return sorted(tile for tile in tiles if tile[0] <= MAX_COST * least)


def joins(workload: ConvWorkload) -> list[dict[str, Any]]:
    """joined, bands: together with layers that a workload does not know; without effect where that
    is not possible."""
    bands = [
        count
        for count in BANDS
        if workload.out[1] % count == 0 and workload.out[1] // count >= MIN_BAND
    ]
    return [
        {"joined": joined, "bands": count} for joined, count in itertools.product(JOINED, bands)
    ]
