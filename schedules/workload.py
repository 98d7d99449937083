"""A convolution or fully connected layer as the tuner knows it: what decides how fast a schedule
is, and nothing that a value changes."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

# A schedule as plain data: "family", and the fields of that family's tile.
Choice = dict[str, int | str]

# A register tile of fewer output channels than this loads more than it multiplies.
MIN_FILTERS = 4


@dataclass(frozen=True, kw_only=True)
class ConvWorkload:
    """One convolution. source, out: (channels, height, width); padding: rows above, columns to the
    left.

    n: filters that share their input channels in the weights' 1xN pattern, 0: no pattern; kept:
    input channels that are left, summed over the groups of filters; clamped: the kernel clamps what
    it reads (a batch norm and ReLU before it).
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
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "op"
            }
            workload = cls(**values)
            sizes = (
                workload.batch,
                *workload.source,
                *workload.out,
                *workload.kernel,
                *workload.stride,
                workload.groups,
                workload.kept,
            )
            return workload if all(type(size) is int and size > 0 for size in sizes) else None
        except TypeError:
            return None

    @property
    def flat(self) -> bool:
        """Whether the flat kernels take it: a grouped convolution with enough filters a group is a
        block-diagonal 1xN pattern."""
        return self.groups == 1 or (self.out[0] // self.groups) % MIN_FILTERS == 0

    @property
    def filters(self) -> int:
        """Output channels that share their input channels."""
        return self.n or self.out[0] // self.groups

    @property
    def density(self) -> float:
        """Share of the blocks that are left."""
        return self.kept / (self.source[0] * -(-self.out[0] // self.n)) if self.n else 1.0


def tile_fields(choice: Choice) -> dict[str, Any]:
    """The fields of the tile that a choice describes."""
    return {name: value for name, value in choice.items() if name != "family"}


def describe(family: str, tile: Any) -> Choice:
    """A tile, a dataclass of numbers and switches, as plain data."""
    return {"family": family, **asdict(tile)}
