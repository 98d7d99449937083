"""Random 1xN-sparse filters, and their operands written down naively: one loop a level of the
layout that the kernels document."""

from dataclasses import dataclass

import numpy as np

from subpc.schedules.block_conv import MAX_PREFETCH_CHANNELS
from subpc.schedules.layout import Frame


@dataclass(frozen=True)
class Filters:
    """weight (c_out, c_in, kh, kw) with zero blocks; kept: for each group of n filters the input
    channels that are left."""

    weight: np.ndarray
    n: int
    kept: list[list[int]]

    @property
    def uniform(self) -> bool:
        return len({len(channels) for channels in self.kept}) == 1

    @property
    def count(self) -> int:
        """The kernels' `kept`: of each group if uniform, of all groups together if not."""
        return len(self.kept[0]) if self.uniform else sum(map(len, self.kept))

    def operands(self, rows: int, channel_floats: int, sparse: bool) -> dict[str, np.ndarray]:
        """w, and index and starts where the kernel has them; `rows` filters share a register
        tile."""
        packed: list[float] = []
        height, width = self.weight.shape[2:]
        for group, channels in enumerate(self.kept):
            for part in range(self.n // rows):
                first = group * self.n + part * rows
                for channel in channels:
                    for tap in range(height * width):
                        packed += [
                            self.weight[first + row, channel, tap // width, tap % width]
                            for row in range(rows)
                        ]
        operands = {"w": np.array(packed, "float32")}
        if sparse:
            index = [channel * channel_floats for channels in self.kept for channel in channels]
            operands["index"] = np.array(index + [0] * MAX_PREFETCH_CHANNELS, "int32")
        if not self.uniform:
            operands["starts"] = np.cumsum([0, *map(len, self.kept)]).astype("int32")
        return operands


def random_filters(
    c_out: int,
    c_in: int,
    kernel: tuple[int, int],
    *,
    n: int,
    sparsity: float,
    uniform: bool = True,
    seed: int = 0,
) -> Filters:
    """Filters of which about `sparsity` of the blocks are zero; groups keep different numbers if
    not uniform."""
    rng = np.random.default_rng(seed)
    weight = np.zeros((c_out, c_in, *kernel), "float32")
    kept = []
    for group in range(c_out // n):
        count = max(1, round((1 - sparsity) * c_in)) if uniform else 1 + (group * 5 + 2) % c_in
        channels = sorted(int(c) for c in rng.choice(c_in, count, replace=False))
        weight[group * n : (group + 1) * n, channels] = rng.standard_normal((n, count, *kernel))
        kept.append(channels)
    return Filters(weight=weight, n=n, kept=kept)


def tap_offsets(
    frame: Frame, kernel: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, ...]:
    """Offsets of the taps of a stride-1 convolution (padding: rows above, columns to the left) on
    planes laid out as `frame`."""
    (kh, kw), (dy, dx), (top, left) = kernel, dilation, padding
    return tuple((y * dy - top) * frame.pitch + x * dx - left for y in range(kh) for x in range(kw))
