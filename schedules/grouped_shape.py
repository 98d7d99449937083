"""What depthwise convolutions and grouped ones with few filters a group have in common, whatever
they compute with."""

from dataclasses import dataclass
from typing import Any

from subpc.schedules.block_conv import Conv


@dataclass(frozen=True, kw_only=True)
class GroupedShape(Conv):
    """y[n, o] from the channels c of o's group and the taps t, weights w[o, c, t].

    groups == source.channels is a depthwise convolution. padding: rows above, columns left; below
    and right follow from the size of `out`. The frame of the source has a halo of at least the
    padding on every side.
    """

    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.source.channels % self.groups or self.out.channels % self.groups:
            raise ValueError(
                f"{self.groups} groups do not divide {self.source.channels} and {self.out.channels}"
                " channels"
            )
        if self.epilogue.in_place:
            raise ValueError(
                "vectors overlap in a row: a residual that the result overwrites would be added"
                " twice"
            )
        if self.source.frame.compact or self.out.frame.compact:
            raise ValueError("grouped convolution works on framed planes")
        if self.halo_needed() > self.source.frame.halo:
            raise ValueError(
                f"the taps reach {self.halo_needed()} pixels outside the image, its halo is"
                f" {self.source.frame.halo}"
            )

    @property
    def kind(self) -> str:
        """The beginning of its family's name."""
        return "depthwise_conv" if self.groups == self.source.channels else "grouped_conv"

    @property
    def per_group(self) -> int:
        """Input channels a group."""
        return self.source.channels // self.groups

    @property
    def taps(self) -> int:
        """Of a filter, for one channel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def flops(self) -> int:
        frame, filters = self.out.frame, self.out.batch * self.out.channels
        return 2 * filters * frame.height * frame.width * self.per_group * self.taps

    def halo_needed(self) -> int:
        """How far the taps reach outside the image, on any side."""
        sizes = (
            (self.source.frame.height, self.out.frame.height),
            (self.source.frame.width, self.out.frame.width),
        )
        needs = [0, *self.padding]
        for axis, (size, count) in enumerate(sizes):
            last = (
                (count - 1) * self.stride[axis]
                - self.padding[axis]
                + (self.kernel[axis] - 1) * self.dilation[axis]
            )
            needs.append(last - (size - 1))
        return max(needs)

    def channel_of(self, plane: Any) -> Any:
        """The output channel of an output plane of the batch."""
        return plane % self.out.channels if self.out.batch > 1 else plane

    def input_plane(self, plane: Any) -> Any:
        """The first input plane of the group of an output plane."""
        if self.source.channels == self.out.channels == self.groups:
            return plane
        filters = self.out.channels // self.groups
        first = self.channel_of(plane) // filters * self.per_group
        if self.out.batch == 1:
            return first
        return plane // self.out.channels * self.source.channels + first

    def input_rows(self, rows: int) -> dict[int, list[tuple[int, int]]]:
        """For each row of the source that `rows` output rows need, counted from the first: the
        output rows, and the filter's rows, that meet there."""
        users: dict[int, list[tuple[int, int]]] = {}
        for r in range(rows):
            for ky in range(self.kernel[0]):
                users.setdefault(r * self.stride[0] + ky * self.dilation[0], []).append((r, ky))
        return dict(sorted(users.items()))
