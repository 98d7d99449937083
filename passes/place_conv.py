"""What the lowering of every 1xN convolution begins with: its weights, its pattern, and where its
tensors are."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import constant_of
from subpc.passes.detect_pattern import BlockPattern
from subpc.passes.lower import Lowering, Place, framed_layout
from subpc.passes.program import Location
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.layout import Frame, TensorLayout


class BlockFields(TypedDict):
    """The fields of a BlockConv."""

    source: TensorLayout
    out: TensorLayout
    group: int
    kept: int
    sparse: bool
    uniform: bool
    epilogue: Epilogue


@dataclass(frozen=True, kw_only=True)
class FilterBlocks:
    """weight: (c_out, c_in, kh, kw) with all input channels; bias: (c_out,); pattern: the blocks
    that a kernel uses, None: dense."""

    weight: np.ndarray
    bias: np.ndarray
    pattern: BlockPattern | None

    @property
    def kept(self) -> int:
        """Input channels that a group reads, or all groups together if they differ."""
        if self.pattern is None:
            return int(self.weight.shape[1])
        return (
            int(self.pattern.kept[0].sum())
            if self.pattern.uniform
            else int(self.pattern.kept.sum())
        )


@dataclass(frozen=True, kw_only=True)
class PlacedConv:
    """A convolution with a place for every tensor. residual: None where there is none."""

    name: str
    filters: FilterBlocks
    source: TensorLayout
    x: Location
    residual: Location | None
    out: Place
    epilogue: Epilogue

    def fields(self, dense_group: int) -> BlockFields:
        """What its kernel has in common with others; dense_group: filters that a dense one takes
        together."""
        pattern = self.filters.pattern
        return BlockFields(
            source=self.source,
            out=self.out.layout,
            group=pattern.n if pattern else dense_group,
            kept=self.filters.kept,
            sparse=pattern is not None,
            uniform=pattern is None or pattern.uniform,
            epilogue=self.epilogue,
        )

    def operands(self, low: Lowering) -> dict[str, Location | None]:
        """x, bias, y and residual."""
        bias = low.weights.add(self.filters.bias)
        return {"x": self.x, "bias": bias, "y": self.out.location, "residual": self.residual}


def filter_blocks(low: Lowering, call: relax.Call) -> FilterBlocks:
    """The weights of a convolution; those of a grouped one as blocks."""
    attrs = ops.attributes(call)
    weight, bias = (constant_of(low.graph.resolve(arg)) for arg in call.args[1:3])
    assert weight is not None and bias is not None
    if attrs["groups"] != 1:
        weight, pattern = block_diagonal(weight, attrs["groups"])
        return FilterBlocks(weight=weight, bias=bias, pattern=pattern)
    return FilterBlocks(weight=weight, bias=bias, pattern=low.decisions[attrs["name"]].pattern)


def place_conv(
    low: Lowering,
    var: relax.Var,
    call: relax.Call,
    filters: FilterBlocks,
    source: TensorLayout,
    x: Location,
    frame: Frame,
) -> PlacedConv:
    """Find places for result and residual: the result goes over the residual if nobody needs that
    any more."""
    attrs, residual = (
        ops.attributes(call),
        low.framed(call.args[3], frame) if len(call.args) == 4 else None,
    )
    if residual is not None and low.overwritable(call.args[3], var):
        out = low.record(var, residual, framed_layout(var, frame))
    else:
        out = low.define(var, frame)
    activation, in_place = ops.activation_of(attrs["activation"]), residual == out.location
    epilogue = Epilogue(residual=residual is not None, in_place=in_place, activation=activation)
    return PlacedConv(
        name=attrs["name"],
        filters=filters,
        source=source,
        x=x,
        residual=residual,
        out=out,
        epilogue=epilogue,
    )


def block_diagonal(weight: np.ndarray, groups: int) -> tuple[np.ndarray, BlockPattern]:
    """A grouped convolution as what it is: a uniform 1xN pattern, N = filters a group, in a weight
    of all input channels."""
    filters, per_group = weight.shape[0] // groups, weight.shape[1]
    full = np.zeros((weight.shape[0], groups * per_group, *weight.shape[2:]), weight.dtype)
    kept = np.zeros((groups, groups * per_group), bool)
    for group in range(groups):
        rows, channels = (
            slice(group * filters, (group + 1) * filters),
            slice(group * per_group, (group + 1) * per_group),
        )
        full[rows, channels] = weight[rows]
        kept[group, channels] = True
    return full, BlockPattern(n=filters, kept=kept, uniform=True)
