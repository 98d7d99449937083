"""Choose the frame of every activation plane: how wide a halo its consumers need, and which tensors
share memory in a concatenation."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, dtype_of, shape_of
from subpc.passes.fold_input_affine import FLOOR, FLOOR_AND_CEILING, is_pointwise
from subpc.schedules.choose_direct import DIRECT
from subpc.schedules.choose_flat import FLAT
from subpc.schedules.choose_grouped import GROUPED
from subpc.schedules.choose_int8_grouped import GROUPED_I8
from subpc.schedules.choose_quads import QUADS
from subpc.schedules.choose_winograd import WINOGRAD
from subpc.schedules.family import Family
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import Frame, compact_frame, halo_frame
from subpc.schedules.quantization import CODES
from subpc.schedules.workload import MIN_FILTERS

# Largest plane on which 1x1 convolutions of two vectors of channels are faster with channels in the
# lanes: 480-500 Gflop/s against 435-465 at 28x28 and below, 430-490 against 465-490 at 56x56
# (docs/performance.md).
MAX_DIRECT_PIXELS = 28 * 28
# With so few registers they never are: six pixels that a tile has lie in as many lines of the cache
# as fourteen do (52 to 73 Gflop/s against 80 to 105 on one core with AVX2).
FEW_REGISTERS = 16
# The widest halo that all tensors of a plane size get because one convolution reads it; 9x9 filters
# read this far.
MAX_SHARED_HALO = 4


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """Where the taps of a convolution read, seen from an output pixel.

    phases: (py, px) of the input pixels that are read at all; taps: for each filter tap the index
    of its phase and the shift (Y, X) within that phase's plane. A stride-1 convolution has the one
    phase (0, 0).
    """

    source: tuple[int, int]
    out: tuple[int, int]
    stride: tuple[int, int]
    phases: tuple[tuple[int, int], ...]
    taps: tuple[tuple[int, int, int], ...]

    @property
    def in_order(self) -> bool:
        """Whether the taps can read the input tensor as it is, without sorting its pixels first."""
        return self.stride == (1, 1) and self.source == self.out

    @property
    def halo(self) -> int:
        """Zero rows and columns that the output's frame needs so that it can hold the phase planes
        as well.

        The columns between two rows serve the right end of one and the left end of the next: what
        is data for one tap must not be padding for another.
        """
        rows, columns = zip(*((y, x) for _, y, x in self.taps), strict=True)
        top, bottom, left, right = (
            max(0, -min(rows)),
            max(0, *rows),
            max(0, -min(columns)),
            max(0, *columns),
        )
        height, width = self.out
        phase_height = max(-(-(self.source[0] - py) // self.stride[0]) for py, _ in self.phases)
        phase_width = max(-(-(self.source[1] - px) // self.stride[1]) for _, px in self.phases)
        return int(
            max(top, bottom, left, right, phase_height - height, phase_width + left - width, 0)
        )

    def offsets(self, frame: Frame) -> tuple[int, ...]:
        """Flat offset of each tap on planes laid out as `frame`, phase after phase."""
        return tuple(phase * frame.plane + y * frame.pitch + x for phase, y, x in self.taps)


def conv_geometry(call: relax.Call) -> ConvGeometry:
    """The geometry of a subpc.conv2d call."""
    attrs = ops.attributes(call)
    kernel, (_, _, height, width) = shape_of(call.args[1])[2:], shape_of(call.args[0])
    (sy, sx), (dy, dx), (top, left) = attrs["strides"], attrs["dilation"], attrs["padding"][:2]
    reached = [
        (ky * dy - top, kx * dx - left) for ky in range(kernel[0]) for kx in range(kernel[1])
    ]
    phases = tuple(sorted({(y % sy, x % sx) for y, x in reached}))
    taps = tuple((phases.index((y % sy, x % sx)), y // sy, x // sx) for y, x in reached)
    return ConvGeometry(
        source=(height, width),
        out=tuple(attrs["out_shape"][2:]),
        stride=(sy, sx),
        phases=phases,
        taps=taps,
    )


def padding_read(call: relax.Call) -> int:
    """Padding rows or columns that a convolution really reads on any side: a stride may leave some
    of them out."""
    attrs, source, kernel = (
        ops.attributes(call),
        shape_of(call.args[0])[2:],
        shape_of(call.args[1])[2:],
    )
    reach = [attrs["padding"][0], attrs["padding"][1]]
    for axis in range(2):
        last = (attrs["out_shape"][2 + axis] - 1) * attrs["strides"][axis] + (
            kernel[axis] - 1
        ) * attrs["dilation"][axis]
        reach.append(last - attrs["padding"][axis] - (source[axis] - 1))
    return int(max(0, *reach))


def is_depthwise(call: relax.Call) -> bool:
    """Whether each output channel reads one input channel, its own."""
    groups, weight = ops.attributes(call)["groups"], shape_of(call.args[1])
    return bool(groups == weight[0] and weight[1] == 1)


def is_flat(call: relax.Call) -> bool:
    """Whether 1xN kernels take a convolution: a grouped one with enough filters a group is a
    block-diagonal 1xN pattern."""
    groups, weight = ops.attributes(call)["groups"], shape_of(call.args[1])
    return bool(groups == 1 or (weight[0] // groups) % MIN_FILTERS == 0)


def is_winograd(call: relax.Call) -> bool:
    """Whether Winograd's formula holds: 3x3 filters, every pixel, not grouped."""
    attrs = ops.attributes(call)
    every = tuple(attrs["strides"]) == tuple(attrs["dilation"]) == (1, 1)
    return every and attrs["groups"] == 1 and tuple(shape_of(call.args[1])[2:]) == (3, 3)


def family_by_rule(
    call: relax.Call, n: int, isa: VectorIsa, *, clamped: bool = False
) -> Family[Any]:
    """The kernels for a convolution without a tuned schedule. n: filters of a block, 0: a dense
    kernel; clamped: its input has to be.

    Where a broadcast pixel serves several taps, or several vectors of channels on a small plane,
    direct kernels are faster than flat ones; whether Winograd's are faster than those is decided
    when everything else is known.
    """
    if dtype_of(call.args[0]) == CODES:
        return QUADS if is_flat(call) else GROUPED_I8
    if not is_flat(call):
        return GROUPED
    filters = n or shape_of(call.args[1])[0] // int(ops.attributes(call)["groups"])
    if clamped or filters % isa.lanes:
        return FLAT
    if is_winograd(call):
        return WINOGRAD
    height, width = ops.attributes(call)["out_shape"][2:]
    small = (
        isa.registers > FEW_REGISTERS
        and filters % (2 * isa.lanes) == 0
        and height * width <= MAX_DIRECT_PIXELS
    )
    return DIRECT if small or shape_of(call.args[1])[2:] != (1, 1) else FLAT


def find_clamps(graph: Dataflow) -> dict[str, relax.Call]:
    """By layer name: the clamp of its input that a 1x1 convolution computes itself, because nobody
    else reads it."""
    users = graph.users()
    clamps: dict[str, relax.Call] = {}
    for var, call in graph.calls(ops.CONV2D):
        source = graph.resolve(call.args[0])
        clamp = graph.call(source, ops.ELEMENTWISE)
        if (
            clamp is not None
            and users.get(source) == [var]
            and is_pointwise(call)
            and min(shape_of(source)[2:]) > 1
            and dtype_of(clamp.args[0]) == dtype_of(source) == "float32"
        ):
            attrs = ops.attributes(clamp)
            if tuple(attrs["program"]) in (FLOOR, FLOOR_AND_CEILING) and set(
                attrs["kinds"][1:]
            ) == {"channel"}:
                clamps[ops.attributes(call)["name"]] = clamp
    return clamps


class FramePlan:
    """One frame for each plane size, wide enough for every convolution of that size: then nothing
    is copied between layers.

    A convolution that reads far beyond its plane, with dilation 12 for instance, gets a copy with a
    frame of its own instead: the zeros would make every other tensor of that size several times
    larger.

    sorts: whether a convolution goes to a kernel for which strided pixels are sorted first.
    """

    def __init__(self, graph: Dataflow, sorts: Callable[[relax.Call], bool]) -> None:
        self._halo: dict[tuple[int, int], int] = {}
        for _, call in graph.calls(ops.CONV2D):
            geometry = conv_geometry(call)
            if not is_flat(call):
                self._widen(geometry.source, padding_read(call))
            elif not sorts(call):
                if padding_read(call) <= MAX_SHARED_HALO:
                    self._widen(geometry.source, padding_read(call))
            else:
                self._widen(geometry.out, geometry.halo)

    def _widen(self, size: tuple[int, int], halo: int) -> None:
        self._halo[size] = max(self._halo.get(size, 0), halo)

    def planar(self, height: int, width: int, dtype: str) -> Frame:
        """The frame of a height x width plane."""
        return halo_frame(height, width, self._halo.get((height, width), 0), dtype)

    def read_by(self, call: relax.Call) -> Frame:
        """The frame in which a direct convolution reads its input."""
        height, width = shape_of(call.args[0])[2:]
        dtype = dtype_of(call.args[0])
        shared = self.planar(height, width, dtype)
        return (
            shared
            if padding_read(call) <= shared.halo
            else halo_frame(height, width, padding_read(call), dtype)
        )

    def frame(self, value: relax.Expr) -> Frame:
        """The frame of a tensor; one of single pixels is a plain vector."""
        height, width = shape_of(value)[2:]
        if height * width == 1:
            return compact_frame(height, width)
        return self.planar(height, width, dtype_of(value))


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A tensor that lives inside another: `channel` channels into the concatenation `root`."""

    root: relax.Var
    channel: int


def plan_concats(graph: Dataflow) -> dict[relax.Var, Slice]:
    """Which tensors their producers can write straight into a concatenation (batch 1: there a slice
    of channels is contiguous).

    The last concatenation comes first: in a DenseNet it contains all earlier ones, which become
    slices of it.
    """
    slices: dict[relax.Var, Slice] = {}
    concats = [(var, call) for var, call in graph.calls(ops.CONCAT) if shape_of(var)[0] == 1]
    for var, call in reversed(concats):
        fields = graph.operands(call)
        channels = [shape_of(field)[1] for field in fields]
        if len(set(fields)) != len(fields) or not all(
            isinstance(field, relax.Var) and field in graph.exprs for field in fields
        ):
            continue
        starts = [0, *accumulate(channels[:-1])]
        placed = [slices.get(field) for field in fields]
        if all(place is None for place in placed):
            home = slices.get(var, Slice(root=var, channel=0))
            for field, start in zip(fields, starts, strict=True):
                slices[field] = Slice(root=home.root, channel=home.channel + start)
        elif var not in slices and placed[0] is not None:
            root, base = placed[0].root, placed[0].channel
            if all(
                p is not None and (p.root, p.channel) == (root, base + s)
                for p, s in zip(placed, starts, strict=True)
            ):
                slices[var] = Slice(root=root, channel=base)
    return slices
