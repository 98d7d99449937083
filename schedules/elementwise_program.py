"""What an elementwise pass computes: a program in postfix order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from subpc.schedules.activation import Activation, activate, constant
from subpc.schedules.special_values import maximum, minimum

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": maximum,
    "min": minimum,
}


@dataclass(frozen=True)
class Constant:
    """A float32 constant of a program; a type of its own, because to Python the input 1 and the
    constant 1.0 are equal."""

    value: float


# An int pushes that input, a Constant itself, a name in BINARY combines the two topmost values, an
# Activation is applied to the topmost one.
Word = int | Constant | str | Activation


def check_program(program: Sequence[Word]) -> None:
    """Raises ValueError for one that does not leave exactly one value."""
    depth = 0
    for word in program:
        depth += -1 if isinstance(word, str) else 0 if isinstance(word, Activation) else 1
        if depth < 1:
            raise ValueError(f"an operation lacks a value: {program}")
    if depth != 1:
        raise ValueError(f"the program leaves {depth} values: {program}")


def gives_zero(program: Sequence[Word], zeros: Sequence[bool]) -> bool:
    """Whether the result is zero where some inputs are, whatever the others; zeros: which ones."""
    zero: list[bool] = []
    for word in program:
        if isinstance(word, Activation):
            zero[-1] = zero[-1] and word.keeps_zero
        elif isinstance(word, str):
            right, left = zero.pop(), zero.pop()
            # A quotient of two zeros is no number, so "div" never counts.
            zero.append((left or right) if word == "mul" else (left and right and word != "div"))
        else:
            zero.append(word.value == 0.0 if isinstance(word, Constant) else zeros[word])
    return zero[0]


def evaluate(program: Sequence[Word], inputs: Sequence[Any], lanes: int) -> Any:
    """The result for inputs of `lanes` float32 each."""
    stack: list[Any] = []
    for word in program:
        if isinstance(word, Activation):
            stack.append(activate(word, stack.pop(), lanes))
        elif isinstance(word, str):
            right, left = stack.pop(), stack.pop()
            stack.append(BINARY[word](left, right))
        elif isinstance(word, Constant):
            stack.append(constant(word.value, lanes))
        else:
            stack.append(inputs[word])
    return stack[0]
