"""How much memory stands behind a pointer argument of a kernel."""

from dataclasses import dataclass

from subpc.schedules.layout import TensorLayout, itemsize


@dataclass(frozen=True)
class Operand:
    """So many elements of a type, one after the other."""

    elements: int
    dtype: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.elements * itemsize(self.dtype)


def floats(count: int) -> Operand:
    """Numbers that a kernel computes with."""
    return Operand(count, "float32")


def integers(count: int) -> Operand:
    """Places, and where lists of them begin."""
    return Operand(count, "int32")


def tensor(layout: TensorLayout) -> Operand:
    """An activation tensor with its halo."""
    return Operand(layout.elements, layout.dtype)
