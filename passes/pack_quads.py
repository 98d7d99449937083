"""Weights of convolutions of codes as their kernels read them."""

from dataclasses import dataclass

import numpy as np

from subpc.passes.place_conv import FilterBlocks
from subpc.schedules.dot import QUAD
from subpc.schedules.layout import round_up
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


def packed_quads(groups: list[QuadGroup], kernel: QuadConv) -> dict[str, np.ndarray]:
    """w, index, [starts]; start: the sum of each filter's codes."""
    plane = kernel.phases * kernel.source.frame.plane
    listed = groups if kernel.sparse else groups[:1]
    together = kernel.group if kernel.tile.filter_lanes else kernel.tile.rows
    arrays = {
        "w": np.concatenate([_streamed(group.codes, together, kernel.narrow) for group in groups]),
        "index": np.concatenate([group.channels for group in listed]).astype("int32")
        * np.int32(plane),
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
