"""What all convolution kernels have in common: their tensors, the pattern of their weights, their
operands."""

from dataclasses import dataclass
from typing import Any, ClassVar

from subpc.schedules.epilogue import Epilogue
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import NO_EPILOGUE, KernelBase
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand, floats, integers, tensor
from subpc.schedules.workload import Choice, describe

# How far ahead a convolution asks for what it will read: input planes of this many kept channels
# later, and weights this many floats later. Gathered planes and new weight panels are nothing that
# the hardware foresees: 10 % of a ResNet-50 (docs/performance.md).
PREFETCH_CHANNELS = 12
# The farthest that a tuned kernel looks ahead: the index of kept channels is this much longer than
# its channels.
MAX_PREFETCH_CHANNELS = 24
PREFETCH_WEIGHTS = 1024


@dataclass(frozen=True, kw_only=True)
class Conv(KernelBase):
    """y[n, o] = epilogue(bias[o] + sum over some input channels and all taps). source, out: the
    tensors that are read and made.

    SCHEDULES: what the tuner calls kernels of this kind.
    """

    SCHEDULES: ClassVar[str]

    source: TensorLayout
    out: TensorLayout
    epilogue: Epilogue = NO_EPILOGUE
    tile: Any

    @property
    def result_layout(self) -> TensorLayout:
        return self.out

    def settled_tile(self, isa: VectorIsa) -> Any:
        """The tile with everything decided that depends on the vector unit."""
        return self.tile

    def choice(self, isa: VectorIsa) -> Choice:
        return describe(self.SCHEDULES, self.settled_tile(isa))


@dataclass(frozen=True, kw_only=True)
class BlockConv(Conv):
    """A convolution whose filters keep or lose all taps of an input channel in blocks of `group`
    filters.

    group: output channels that share their kept input channels (N); kept: input channels a group
    reads.
    uniform: every group keeps `kept`; else `starts` (groups + 1) tells where each group's kept
    channels begin and `kept` is their sum.
    sparse: input channels are named by `index` (else group g reads channels 0 .. kept - 1).
    """

    group: int
    kept: int
    sparse: bool
    uniform: bool

    @property
    def groups(self) -> int:
        """Groups of output channels, the last one padded with zero filters if N does not divide
        c_out."""
        return -(-self.out.channels // self.group)

    @property
    def blocks(self) -> int:
        """Kept input channels, summed over the groups."""
        return self.groups * self.kept if self.uniform else self.kept

    @property
    def sum_type(self) -> str:
        """The type of the sums, which begin with the bias."""
        return self.sizes()["bias"].dtype

    def flops_of(self, taps: int) -> int:
        """Useful operations with so many taps a filter."""
        return (
            2
            * self.out.batch
            * self.blocks
            * self.group
            * taps
            * self.out.frame.height
            * self.out.frame.width
        )

    def pattern_operands(self) -> dict[str, Operand]:
        """index, with MAX_PREFETCH_CHANNELS more at its end, and starts, where the kernel has
        them."""
        found = {"index": integers(self.blocks + MAX_PREFETCH_CHANNELS)} if self.sparse else {}
        return found if self.uniform else found | {"starts": integers(self.groups + 1)}

    def operands_around(
        self, weights: Operand, before_bias: dict[str, Operand], last: dict[str, Operand]
    ) -> dict[str, Operand]:
        """All operands in order, with those that a kernel has of its own: w, what stands before the
        bias, and before y."""
        sizes = {"x": tensor(self.source), "w": weights} | self.pattern_operands() | before_bias
        sizes |= {"bias": floats(self.groups * self.group)} | self.epilogue.operands(self.out)
        return sizes | last | {"y": tensor(self.out)}

    def kept_of(self, b: dict[str, Any], group: Any) -> tuple[Any, Any]:
        """Where a group's kept channels begin in the index, and how many there are; expressions."""
        if self.uniform:
            return group * self.kept, self.kept
        return b["starts"][group], b["starts"][group + 1] - b["starts"][group]

    def channel_at(self, b: dict[str, Any], first: Any, kept: Any, floats: int) -> Any:
        """Where kept channel `kept` of the group that begins at `first` begins in x; an expression.

        floats: from one channel to the next.
        """
        return b["index"][first + kept] if self.sparse else kept * floats
