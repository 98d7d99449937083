"""Copies of channel planes: concat, split, shuffle."""

from dataclasses import dataclass
from typing import Any

from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import PlainKernel
from subpc.schedules.layout import Frame
from subpc.schedules.operand import Operand
from subpc.schedules.vector import fetch, for_row, put, units

# Rough cost of a plane, and of an element in each operand: enough to size tasks.
PLANE_NS, ELEMENT_NS = 4.0, 0.08


@dataclass(frozen=True, kw_only=True)
class ChannelCopy(PlainKernel):
    """y[n, out_start + i] = x[n, source_start + i] for i < count; other planes of y stay as they
    are.

    groups: the planes of x are that many groups, and y takes one of each by turns (a channel
    shuffle). Operands: x, y.
    """

    batch: int
    frame: Frame
    source_channels: int
    out_channels: int
    count: int
    source_start: int = 0
    out_start: int = 0
    groups: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        ends = self.source_start + self.count, self.out_start + self.count
        if ends[0] > self.source_channels or ends[1] > self.out_channels:
            raise ValueError(
                f"copy of channels before {ends[0]} to {ends[1]}; there are {self.source_channels}"
                f" and {self.out_channels}"
            )
        if self.count % self.groups:
            raise ValueError(f"{self.groups} groups of {self.count} channels")

    @property
    def family(self) -> str:
        return "channel_copy"

    @property
    def flops(self) -> int:
        return 0

    def sizes(self) -> dict[str, Operand]:
        x, y = (
            self.batch * channels * self.frame.plane
            for channels in (self.source_channels, self.out_channels)
        )
        return {"x": Operand(x, self.dtype), "y": Operand(y, self.dtype)}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        plane = self.frame.plane
        with units(self.batch * self.count, PLANE_NS + ELEMENT_NS * self.frame.pixels) as unit:
            image, i = unit // self.count, unit % self.count
            source = i
            if self.groups > 1:
                source = i % self.groups * (self.count // self.groups) + i // self.groups
            read = (
                image * self.source_channels + self.source_start + source
            ) * plane + self.frame.first
            write = (image * self.out_channels + self.out_start + i) * plane + self.frame.first
            for_row(
                self.frame.pixels,
                isa.lanes_of(self.dtype),
                lambda at, size: put(b["y"], write + at, fetch(b["x"], read + at, size), size),
            )
