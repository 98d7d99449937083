"""Weights of convolutions of codes as their kernels read them."""

from dataclasses import dataclass, replace

import numpy as np

from subpc.passes.place_conv import FilterBlocks
from subpc.passes.plan_layout import ConvGeometry
from subpc.schedules.dot import QUAD
from subpc.schedules.layout import Frame, round_up
from subpc.schedules.quad_conv import QuadConv


@dataclass(frozen=True, kw_only=True)
class QuadGroup:
    """The filters of a group with the channels that they keep: codes int8 (filters, channels,
    taps), channels (channels,). Behind those kept stand channels whose codes are 0, up to a whole
    quad."""

    codes: np.ndarray
    channels: np.ndarray

    @property
    def quads(self) -> int:
        """Of channels."""
        return len(self.channels) // QUAD


# Input channels up to this are listed once for each tap where that saves quads.
_FEW_CHANNELS = 8
_WORTH_IT = 0.9


@dataclass(frozen=True, kw_only=True)
class ChannelPlaces:
    """What the kernel takes for channels and taps. places: where each channel begins, in bytes;
    phases: planes of a channel; taps: offsets, in pixels."""

    places: np.ndarray
    phases: int
    taps: tuple[int, ...]


def channel_places(filters: FilterBlocks, geometry: ConvGeometry, frame: Frame) -> ChannelPlaces:
    """The channels of a layer. Three of them leave a quarter of each quad empty: the first layer of
    most networks has 37 quads of (channel, tap) and 49 of channels. There each tap of a channel is
    a channel of its own, which begins where the tap reads.

    frame: of the source.
    """
    c_in, taps = filters.weight.shape[1], geometry.offsets(frame)
    plane = len(geometry.phases) * frame.plane
    if filters.pattern is None and taps_are_channels(c_in, len(taps)):
        places = np.arange(c_in)[:, None] * plane + np.array(taps)
        return ChannelPlaces(places=places.reshape(-1), phases=1, taps=(0,))
    return ChannelPlaces(places=np.arange(c_in) * plane, phases=len(geometry.phases), taps=taps)


def taps_are_channels(c_in: int, taps: int) -> bool:
    """Whether a dense layer of few channels lists them once for each tap."""
    quads = -(-c_in // QUAD) * taps
    return c_in <= _FEW_CHANNELS and -(-c_in * taps // QUAD) <= _WORTH_IT * quads


def by_tap(filters: FilterBlocks) -> FilterBlocks:
    """A dense layer whose taps are channels."""
    weight = filters.weight.reshape(len(filters.weight), -1, 1, 1)
    return replace(filters, weight=weight)


def quad_groups(filters: FilterBlocks, dense: int) -> list[QuadGroup]:
    """The groups of a layer, filters of zeros behind the last one; dense: filters of a group where
    there is no pattern."""
    pattern, (c_out, c_in) = filters.pattern, filters.weight.shape[:2]
    size = pattern.n if pattern else dense
    codes = filters.weight.reshape(c_out, c_in, -1)
    codes = np.pad(codes, ((0, -c_out % size), (0, 0), (0, 0)))
    groups = []
    for number, group in enumerate(codes.reshape(-1, size, *codes.shape[1:])):
        kept = np.arange(c_in) if pattern is None else np.flatnonzero(pattern.kept[number])
        extra = round_up(len(kept), QUAD) - len(kept)
        groups.append(
            QuadGroup(
                codes=np.pad(group[:, kept], ((0, 0), (0, extra), (0, 0))),
                channels=np.pad(kept, (0, extra)),
            )
        )
    return groups


def packed_quads(
    groups: list[QuadGroup], kernel: QuadConv, places: np.ndarray
) -> dict[str, np.ndarray]:
    """w, index, [starts]; start: the sum of each filter's codes. places: of each channel, in
    bytes."""
    listed = groups if kernel.sparse else groups[:1]
    together = kernel.group if kernel.tile.filter_lanes else kernel.tile.rows
    arrays = {
        "w": np.concatenate([_streamed(group.codes, together, kernel.narrow) for group in groups]),
        "index": places[np.concatenate([group.channels for group in listed])].astype("int32"),
        "start": np.concatenate([group.codes.sum(axis=(1, 2), dtype="int64") for group in groups]),
    }
    if not kernel.uniform:
        quads = [group.quads for group in groups]
        arrays["starts"] = np.concatenate([[0], np.cumsum(quads)]).astype("int32")
    return arrays


def _streamed(codes: np.ndarray, rows: int, narrow: int | None) -> np.ndarray:
    """Codes (filters, channels, taps) of a group as its register tiles read them: four a word, or,
    where not even two products fit 16 bits, two."""
    parts = []
    for row in range(0, len(codes), rows):
        part = codes[row : row + rows]
        quads = part.reshape(len(part), -1, QUAD, part.shape[2]).transpose(1, 3, 0, 2)
        if narrow == 0:
            quads = -quads[..., [0, 2, 1, 3]].astype("int16")
        parts.append(np.ascontiguousarray(quads).reshape(-1))
    return np.concatenate(parts).view("int32")
