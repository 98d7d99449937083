"""Convolution of codes on framed planes, 1xN block-sparse or dense: uint8 activations by int8
weights, int32 sums.

Lanes are neighbouring pixels, as in flat_conv.py; every tap is a constant offset. The hardware adds
four products of neighbouring bytes to a 32-bit lane, so four input channels lie next to each other
for each pixel. In memory activations are planes: a task first packs, for its band of pixels, the
planes of the channels that its groups keep into such quads, in memory of its own that stays in L1
or L2. Then all filters and taps of these groups read them: packing costs an instruction for about
every N x taps / 3 that multiply. A dense layer packs once for all its filters.

Weights: for each group, register block, quad, and tap the `rows` filters' four codes, next to each
other as the loops read them.
"""

from dataclasses import dataclass
from typing import Any

from subpc.schedules.isa import VectorIsa
from subpc.schedules.quad_body import QuadBody
from subpc.schedules.quad_filters import FilterLanes
from subpc.schedules.quad_layer import QuadLayer


@dataclass(frozen=True, kw_only=True)
class QuadConv(QuadLayer):
    """The kernel of a QuadLayer."""

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        (FilterLanes if self.tile.filter_lanes else QuadBody)(self, isa, b).tasks()
