"""What a kernel does with a finished sum before it stores it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subpc.schedules.activation import NONE, Activation, activate
from subpc.schedules.layout import TensorLayout
from subpc.schedules.operand import Operand, tensor
from subpc.schedules.vector import fetch


@dataclass(frozen=True, kw_only=True)
class Epilogue:
    """y = activation(sum + residual).

    residual: whether there is one, a tensor laid out as the result. in_place: y holds it before,
    and the result afterwards, so that no pixel may be computed twice; else it is an operand of that
    name.
    """

    residual: bool = False
    in_place: bool = False
    activation: Activation = NONE

    def __post_init__(self) -> None:
        if self.in_place and not self.residual:
            raise ValueError("nothing to overwrite: there is no residual")

    @property
    def operand(self) -> str | None:
        """The operand that holds the residual."""
        if not self.residual:
            return None
        return "y" if self.in_place else "residual"

    def without_residual(self) -> "Epilogue":
        """The same for a sum that has begun with its residual."""
        return Epilogue(activation=self.activation)

    def operands(self, out: TensorLayout) -> dict[str, Operand]:
        """What the kernel needs besides its result."""
        return {"residual": tensor(out)} if self.operand == "residual" else {}

    def start(self, value: Any, b: Mapping[str, Any], at: Any, lanes: int) -> Any:
        """`value` and the residual of `lanes` pixels from element `at` on; b: operands by name."""
        return value if self.operand is None else value + fetch(b[self.operand], at, lanes)

    def finish(self, value: Any, b: Mapping[str, Any], at: Any, lanes: int) -> Any:
        """What is stored for a finished sum."""
        return activate(self.activation, self.start(value, b, at, lanes), lanes)
