"""Elementwise passes on codes with fewer multiplications: scales become part of each other, and of
constants, before anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from subpc.schedules.activation import Activation
from subpc.schedules.elementwise_program import Constant, Word
from subpc.schedules.quantization import Quantization

# Activations for which f(k x) = k f(x), k > 0.
_SCALED_THROUGH = ("none", "relu", "leaky_relu")
# A byte as the number that it is.
_BYTE = Quantization(scale=1.0, zero_point=0)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """program: in the words of schedules/elementwise.py. quantizations, quantization: of operands
    and result, None for floats. constants: the operands that are known, float32, by number."""

    program: tuple[Word, ...]
    quantizations: tuple[Quantization | None, ...]
    quantization: Quantization | None
    constants: Mapping[int, np.ndarray]


def fold_scales(given: Pass) -> Pass:
    """The same codes, up to the rounding of float32: the result's scale divides operands where the
    program lets it through, and a batch norm's factor and offset take in what its input stands
    for."""
    return _fold_affine(_fold_result(given))


def _fold_result(given: Pass) -> Pass:
    if given.quantization is None:
        return given
    scaled = _operands_that_scale(given)
    if not scaled:
        return given
    scale = given.quantization.scale
    constants, quantizations = dict(given.constants), list(given.quantizations)
    for i in scaled:
        quantization = quantizations[i]
        if quantization is None:
            constants[i] = constants[i].astype("float64") / scale
        elif _is_float32(np.array(quantization.scale / scale)):
            quantizations[i] = replace(quantization, scale=quantization.scale / scale)
        else:
            return given
    if not all(_is_float32(constants[i]) for i in scaled & set(constants)):
        return given
    constants = {i: value.astype("float32") for i, value in constants.items()}
    return replace(
        given,
        quantizations=tuple(quantizations),
        quantization=replace(given.quantization, scale=1.0),
        constants=constants,
    )


def _is_float32(values: np.ndarray) -> bool:
    """Whether float32 has room for float64 values: none too large, none but zeros too small."""
    size = np.abs(values)
    known = np.finfo("float32")
    return bool(((size == 0) | ((size >= known.tiny) & (size <= known.max))).all())


@dataclass(frozen=True)
class _Value:
    """used: the operands that a value depends on; scaled: those by which it is multiplied if they
    are, None: there are none."""

    used: frozenset[int] = frozenset()
    scaled: frozenset[int] | None = field(default=frozenset())


def _operands_that_scale(given: Pass) -> frozenset[int]:
    """Operands whose common factor becomes a factor of the result; none where it does not."""
    stack: list[_Value] = []
    for word in given.program:
        if isinstance(word, Activation):
            value = stack.pop()
            through = word.kind in _SCALED_THROUGH
            stack.append(value if through else _Value(value.used, None))
        elif isinstance(word, str):
            right, left = stack.pop(), stack.pop()
            stack.append(_combined(given, word, left, right))
        elif isinstance(word, Constant):
            stack.append(_Value(scaled=frozenset() if word.value == 0 else None))
        else:
            known = word in given.constants or given.quantizations[word] is not None
            stack.append(_Value(frozenset([word]), frozenset([word]) if known else None))
    return stack[0].scaled or frozenset()


def _combined(given: Pass, word: str, left: _Value, right: _Value) -> _Value:
    used = left.used | right.used
    if word in ("mul", "div"):
        factors = [(left, right)] if word == "div" else [(left, right), (right, left)]
        usable = [a.scaled for a, b in factors if a.scaled is not None and not a.scaled & b.used]
        # Constants first: they are multiplied before anything runs.
        usable.sort(key=lambda scaled: not scaled <= set(given.constants))
        return _Value(used, usable[0] if usable else None)
    if left.scaled is None or right.scaled is None:
        return _Value(used, None)
    fixed = (left.used - left.scaled) | (right.used - right.scaled)
    scaled = left.scaled | right.scaled
    return _Value(used, None if scaled & fixed else scaled)


def _fold_affine(given: Pass) -> Pass:
    """x * m + a of codes x and constants m, a: (codes as they are) * m' + a'."""
    program = given.program
    for at in range(len(program) - 4):
        first, second, times, added, plus = program[at : at + 5]
        operands = [word for word in (first, second, added) if isinstance(word, int)]
        if (times, plus) != ("mul", "add") or len(operands) != 3:
            continue
        x, m = (first, second) if second in given.constants else (second, first)
        assert isinstance(x, int) and isinstance(m, int) and isinstance(added, int)
        codes = given.quantizations[x]
        alone = all(program.count(word) == 1 for word in operands)
        if codes is None or not alone or not {m, added} <= set(given.constants):
            continue
        factor = given.constants[m].astype("float64") * codes.scale
        offset = given.constants[added].astype("float64") - factor * codes.zero_point
        if not (_is_float32(factor) and _is_float32(offset)):
            continue
        changed = {m: factor.astype("float32"), added: offset.astype("float32")}
        quantizations = [_BYTE if i == x else q for i, q in enumerate(given.quantizations)]
        given = replace(
            given, quantizations=tuple(quantizations), constants={**given.constants, **changed}
        )
    return given
