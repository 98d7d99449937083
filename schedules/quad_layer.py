"""What a convolution of codes consists of: its tensors, quads, and operands."""

from dataclasses import dataclass

from subpc.schedules.block_conv import BlockConv
from subpc.schedules.dot import QUAD
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand, integers, tensor
from subpc.schedules.quad_tile import QuadTile
from subpc.schedules.requantize import Requantize, operands_of


@dataclass(frozen=True, kw_only=True)
class QuadLayer(BlockConv):
    """y[n, o, q] = epilogue(sum_{k, tap} w[o, k, tap] * x[n, channel(o, k), q + offset(tap)]).

    source: planes of codes; one input channel is `phases` consecutive planes of it. out: codes or
    float32; its pitch equals the pitch of the source. taps: offset of each tap in pixels from pixel
    q of the channel's first plane. quads: of kept channels a group, or of all groups together where
    they are not uniform; the last one of a group may name channels whose weights are 0. residual:
    how it lies, with the pitch of the result. narrow: without vpdpbusd, the steps (taps of a quad)
    whose sums fit 16 bits whatever the pixels, as fitting_steps() says; 0: not even one, weights
    are words. None: there is vpdpbusd.

    Operands: x, w (int32: four codes each; as words, codes 0 and 2 and then 1 and 3), index (where
    the planes of each quad's four channels begin, in bytes), [starts] (in quads), start (int32,
    filters: minus zero point times the sum of the weights), multiplier, bias, levels, [residual],
    [mask], y.
    """

    SCHEDULES = "quads"

    phases: int
    taps: tuple[int, ...]
    quads: int
    residual: TensorLayout | None = None
    epilogue: Requantize
    tile: QuadTile
    narrow: int | None = None

    @property
    def family(self) -> str:
        return "bsr_conv_i8" if self.sparse else "dense_conv_i8"

    @property
    def masked(self) -> bool:
        """Whether border columns lie between the rows and have to keep their value."""
        return self.out.frame.halo > 0

    @property
    def flops(self) -> int:
        return self.flops_of(len(self.taps))

    @property
    def all_quads(self) -> int:
        """Quads, summed over the groups."""
        return self.groups * self.quads if self.uniform else self.quads

    def sizes(self) -> dict[str, Operand]:
        filters = self.groups * self.group
        sizes = {"x": tensor(self.source)}
        words = 2 if self.narrow == 0 else 1
        sizes["w"] = integers(self.all_quads * len(self.taps) * self.group * words)
        sizes["index"] = integers((self.all_quads if self.sparse else self.quads) * QUAD)
        if not self.uniform:
            sizes["starts"] = integers(self.groups + 1)
        sizes |= {"start": integers(filters)} | operands_of(filters)
        if self.epilogue.operand == "residual":
            assert self.residual is not None
            sizes["residual"] = tensor(self.residual)
        if self.masked:
            sizes["mask"] = Operand(self.out.frame.plane, self.out.dtype)
        return sizes | {"y": tensor(self.out)}
