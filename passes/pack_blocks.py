"""Weights and patterns in the order in which kernels stream them."""

import numpy as np

from subpc.passes.detect_pattern import BlockPattern
from subpc.passes.place_conv import FilterBlocks
from subpc.passes.program import Location, WeightStore
from subpc.schedules.block_conv import MAX_PREFETCH_CHANNELS
from subpc.schedules.layout import Frame
from subpc.schedules.winograd_transforms import transformed_filters


def pack_weights(
    weights: WeightStore, filters: FilterBlocks, group: int, rows: int, channel_floats: int
) -> dict[str, Location]:
    """Weights as a register tile of `rows` channels streams them: (group, row block, kept channel,
    tap, row); and `pack_index`."""
    c_out, c_in, *size = filters.weight.shape
    grouped = filters.weight.reshape(
        c_out // group, group // rows, rows, c_in, size[0] * size[1]
    ).transpose(0, 1, 3, 4, 2)
    if filters.pattern is None:
        return {"w": weights.add(grouped)}
    packed = [blocks[:, kept] for blocks, kept in zip(grouped, filters.pattern.kept, strict=True)]
    place = weights.add(np.concatenate([part.reshape(-1) for part in packed]))
    return {"w": place} | pack_index(weights, filters.pattern, channel_floats)


def pack_transformed(
    weights: WeightStore, filters: FilterBlocks, group: int, rows: int, channel_floats: int
) -> dict[str, Location]:
    """Transformed filters as a register tile streams them: (group, row block, position, kept
    channel, row); and `pack_index`."""
    u, pattern = transformed_filters(filters.weight), filters.pattern
    grouped = u.reshape(-1, group // rows, rows, *u.shape[1:]).transpose(0, 1, 4, 3, 2)
    kept = (
        [np.arange(u.shape[1])] * len(grouped)
        if pattern is None
        else [*map(np.flatnonzero, pattern.kept)]
    )
    parts = [
        blocks[:, :, channels].reshape(-1) for blocks, channels in zip(grouped, kept, strict=True)
    ]
    return {"w": weights.add(np.concatenate(parts))} | pack_index(weights, pattern, channel_floats)


def pack_index(
    weights: WeightStore, pattern: BlockPattern | None, channel_floats: int
) -> dict[str, Location]:
    """Where each group's kept channels begin in the input, in floats, and each group in that list
    if their numbers differ."""
    if pattern is None:
        return {}
    channels = np.concatenate(
        [*map(np.flatnonzero, pattern.kept), np.zeros(MAX_PREFETCH_CHANNELS)]
    ).astype("int32")
    operands = {"index": weights.add(channels * np.int32(channel_floats))}
    if not pattern.uniform:
        starts = np.concatenate([[0], np.cumsum(pattern.kept.sum(axis=1))]).astype("int32")
        operands["starts"] = weights.add(starts)
    return operands


def by_index(bound: np.ndarray | None, pattern: BlockPattern | None) -> np.ndarray:
    """A bound of each input channel, in the order in which the kernel meets the channels."""
    assert bound is not None
    return bound if pattern is None else np.concatenate([bound[kept] for kept in pattern.kept])


def pixel_mask(frame: Frame) -> np.ndarray:
    """A plane with 1 for its pixels, and 0 for the columns between rows and everything around them;
    (plane,)."""
    q = np.arange(frame.plane) - frame.first
    return ((q >= 0) & (q % frame.pitch < frame.width) & (q < frame.pixels)).astype("float32")
