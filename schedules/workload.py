"""A convolution or fully connected layer as the tuner knows it: what decides how fast a schedule is, and nothing that a value changes."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from subpc.schedules.direct_conv import DirectTile
from subpc.schedules.flat_conv import FlatTile
from subpc.schedules.grouped_conv import GroupedTile
from subpc.schedules.isa import VectorIsa
from subpc.schedules.winograd import WinogradTile

# A schedule as plain data: "family", and the fields of that family's tile.
Choice = dict[str, int | str]

FLAT, DIRECT, DENSE_FLAT, DENSE_DIRECT, GROUPED = "flat", "direct", "dense flat", "dense direct", "grouped"
WINOGRAD, DENSE_WINOGRAD = "winograd", "dense winograd"
# Those that ignore the pattern of the weights.
DENSE_FAMILIES = (DENSE_FLAT, DENSE_DIRECT, DENSE_WINOGRAD)
# A register tile of fewer output channels than this loads more than it multiplies.
MIN_FILTERS = 4
# A dense kernel for a pattern that leaves less than this would have to be more than twice as fast as the sparse one at the same work.
MIN_DENSITY = 0.45


@dataclass(frozen=True, kw_only=True)
class ConvWorkload:
    """One convolution. source, out: (channels, height, width); padding: rows above, columns to the left.

    n: filters that share their input channels in the weights' 1xN pattern, 0: no pattern; kept: input channels that are left, summed
    over the groups of filters; clamped: the kernel clamps what it reads (a batch norm and ReLU before it).
    """

    batch: int
    source: tuple[int, int, int]
    out: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    n: int
    kept: int
    uniform: bool
    residual: bool
    clamped: bool
    activation: str
    precision: str = "float32"

    @property
    def key(self) -> str:
        """The workload as one canonical line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, tuples as lists."""
        return {"op": "conv2d", **json.loads(json.dumps(asdict(self)))}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ConvWorkload | None":
        """The inverse of to_dict, None for anything else."""
        names = {"op", *(f.name for f in fields(cls))}
        if set(data) != names or data["op"] != "conv2d":
            return None
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "op"}
            workload = cls(**values)
            sizes = (workload.batch, *workload.source, *workload.out, *workload.kernel, *workload.stride, workload.groups, workload.kept)
            return workload if all(type(size) is int and size > 0 for size in sizes) else None
        except TypeError:
            return None

    @property
    def flat(self) -> bool:
        """Whether the flat kernels take it: a grouped convolution with enough filters a group is a block-diagonal 1xN pattern."""
        return self.groups == 1 or (self.out[0] // self.groups) % MIN_FILTERS == 0

    @property
    def density(self) -> float:
        """Share of the blocks that are left."""
        return self.kept / (self.source[0] * -(-self.out[0] // self.n)) if self.n else 1.0

    def families(self, isa: VectorIsa) -> tuple[str, ...]:
        """The kernel families that can compute it."""
        if not self.flat:
            return (GROUPED,)
        filters = self.n or self.out[0] // self.groups
        sparse = self._with_lanes((FLAT, DIRECT, WINOGRAD), filters, isa)
        if not self.n or self.density < MIN_DENSITY:
            return sparse
        return sparse + self._with_lanes((DENSE_FLAT, DENSE_DIRECT, DENSE_WINOGRAD), self.out[0], isa)

    def _with_lanes(self, names: tuple[str, str, str], filters: int, isa: VectorIsa) -> tuple[str, ...]:
        """Those of the flat, the direct and the Winograd family that take `filters` output channels together."""
        if filters % isa.lanes or self.clamped:
            return names[:1]
        formula = self.kernel == (3, 3) and self.stride == self.dilation == (1, 1) and self.groups == 1
        return names if formula else names[:2]


def tile_fields(choice: Choice) -> dict[str, Any]:
    """The fields of the tile that a choice describes."""
    return {name: value for name, value in choice.items() if name != "family"}


def describe(family: str, tile: FlatTile | DirectTile | WinogradTile | GroupedTile) -> Choice:
    """A tile as plain data."""
    return {"family": family, **asdict(tile)}
