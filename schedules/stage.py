"""Convolutions that can compute a band of rows of their result: one of several layers in a loop
(joined.py)."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from subpc.schedules.block_conv import Conv
from subpc.schedules.isa import VectorIsa
from subpc.schedules.layout import Origin, TensorLayout

AnyStage = TypeVar("AnyStage", bound="Stage")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows scale * band + offset and the `count` - 1 after it."""

    scale: int
    offset: int
    count: int


class BandTile(Protocol):
    """A schedule that says with how many of the next layers a stage is computed, and in how many
    bands of rows."""

    @property
    def joined(self) -> int: ...
    @property
    def bands(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Stage(Conv):
    """A convolution that can be computed in bands."""

    tile: BandTile

    @abstractmethod
    def follows(self, before: "Stage", kept: bool) -> bool:
        """Whether it can compute its bands from those of `before`, whose result it reads; kept:
        others read that result, too."""

    @abstractmethod
    def emit_band(self, b: dict[str, Any], isa: VectorIsa, origin: Origin) -> None:
        """The loops of one task, for the band that `out` is; b: operands by name."""

    @property
    def in_bands(self) -> bool:
        """Whether its schedule lets a task compute a band by itself."""
        return True

    @property
    def row_stride(self) -> int:
        """Rows of the source from one row of the result to the next."""
        return 1

    @property
    def overlaps(self) -> bool:
        """Whether a band needs rows of the source that the bands beside it need, too."""
        return False

    @property
    def zeros_rows(self) -> bool:
        """Whether it can write zeros for rows outside of the image, as filters that reach there
        need them."""
        return False

    @property
    def zeros_between(self) -> bool:
        """Whether it writes the zeros between its rows itself."""
        return False

    @property
    def detaches(self) -> bool:
        """Whether a result that would overwrite what the first stage reads may go elsewhere
        instead."""
        return False

    def rows_read(self, rows: Rows) -> Rows:
        """The rows of the source that a band of the result needs."""
        return rows

    def banded(
        self: AnyStage, source: TensorLayout, out: TensorLayout, *, own_rows: bool
    ) -> AnyStage:
        """The kernel of a band; own_rows: `source` holds the rows of `rows_read` and nothing
        else."""
        return replace(self, source=source, out=out)

    def detached(self: AnyStage) -> AnyStage:
        """The kernel with a residual that its result does not overwrite."""
        return replace(self, epilogue=replace(self.epilogue, in_place=False))
