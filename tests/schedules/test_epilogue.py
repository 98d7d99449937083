"""What an epilogue reads, and where from."""

import pytest

from subpc.schedules.activation import Activation
from subpc.schedules.epilogue import Epilogue
from subpc.schedules.layout import TensorLayout, halo_frame
from subpc.schedules.operand import Operand

OUT = TensorLayout(batch=2, channels=3, frame=halo_frame(4, 5, 1, "uint8"), dtype="uint8")


def test_a_residual_is_an_operand_like_the_result_or_the_result_itself() -> None:
    assert Epilogue().operands(OUT) == {}
    assert Epilogue(residual=True).operands(OUT) == {"residual": Operand(OUT.elements, "uint8")}
    assert Epilogue(residual=True, in_place=True).operands(OUT) == {}
    operands = [
        e.operand
        for e in (Epilogue(), Epilogue(residual=True), Epilogue(residual=True, in_place=True))
    ]
    assert operands == [None, "residual", "y"]


def test_a_sum_that_has_begun_with_its_residual_is_only_activated() -> None:
    relu = Activation(kind="relu")
    assert Epilogue(residual=True, in_place=True, activation=relu).without_residual() == Epilogue(
        activation=relu
    )


def test_only_a_residual_can_be_overwritten() -> None:
    with pytest.raises(ValueError, match="there is no residual"):
        Epilogue(in_place=True)
