"""Activation functions as vector expressions for kernel epilogues: polynomials only, no calls into
libm."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from subpc.schedules.vector import splat

# exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 is split so that n * LN2_HIGH is
# exact.
LOG2_E = 1.44269504088896341
LN2_HIGH = 0.693359375
LN2_LOW = -2.12194440e-4
# Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits: rounding without an
# instruction that SSE2 lacks.
ROUND = 12582912.0
# Below, 2^(n-1) is no normal number and the result is 0; above, exp(x) is infinite in float32, as
# is what is computed up to there.
EXP_LOW, EXP_HIGH = -86.98, 89.0
# Minimax polynomial of (exp(r) - 1 - r) / r^2 (Cephes expf), highest power first.
EXP_TERMS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)

# erf(x) = x * P(x^2) / Q(x^2) on [-4, 4], where it reaches 1 within float32; the rational fit that
# Eigen and XLA use.
ERF_LIMIT = 4.0
ERF_TOP = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_BOTTOM = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)

# gelu(x) = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the tanh approximation written with one
# exp.
GELU_TANH_SCALE, GELU_TANH_CUBE = 1.5957691216057308, 0.044715


@dataclass(frozen=True, kw_only=True)
class Activation:
    """Which function follows a kernel's sum. low, high: limits of "clip"; slope: of "leaky_relu"
    below zero."""

    kind: str = "none"
    low: float = 0.0
    high: float = 0.0
    slope: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _FUNCTIONS:
            raise ValueError(f"unknown activation {self.kind!r}; known: {', '.join(ACTIVATIONS)}")

    @property
    def keeps_zero(self) -> bool:
        """Whether f(0) = 0: then zero halo positions stay zero without a mask."""
        if self.kind == "clip":
            return self.low <= 0.0 <= self.high
        return self.kind not in ("sigmoid", "hardsigmoid", "exp")


def activate(activation: Activation, value: Any, lanes: int) -> Any:
    """The activation of `value`, a float32 expression of `lanes` lanes (1: a scalar)."""
    return _FUNCTIONS[activation.kind](activation, value, lanes)


def constant(value: float, lanes: int) -> Any:
    """A float32 constant in every lane."""
    scalar = tirx.const(value, "float32")
    return splat(scalar, lanes) if lanes > 1 else scalar


def let(value: Any, body: Callable[[Any], Any], lanes: int) -> Any:
    """Evaluate `value` once for several uses in `body`; expression trees without it would double
    with every use."""
    var = tirx.Var("v", _dtype("float32", lanes))
    return tirx.Let(var, value, body(var))


def exp(value: Any, lanes: int) -> Any:
    """exp with a relative error of about 1e-7; 0 below -86.98, where float32 nears its denormal
    numbers, and infinite above 88.72."""

    def reduced(x: Any) -> Any:
        result = let(
            x * constant(LOG2_E, lanes) + constant(ROUND, lanes),
            lambda t: _exp_body(x, t, lanes),
            lanes,
        )
        return tirx.Select(x < constant(EXP_LOW, lanes), constant(0.0, lanes), result)

    return let(tirx.min(constant(EXP_HIGH, lanes), value), reduced, lanes)


def _exp_body(x: Any, t: Any, lanes: int) -> Any:
    n = t - constant(ROUND, lanes)
    r = x - n * constant(LN2_HIGH, lanes) - n * constant(LN2_LOW, lanes)
    ints = _dtype("int32", lanes)
    bits = tirx.reinterpret(ints, t)
    # The bits of ROUND above the integer leave through the top of the shift: what remains is n in
    # the exponent field. 2^(n-1), doubled at the end: 2^128 is no float, but exp(88.5) is.
    scale = (bits << tirx.const(23, ints)) + tirx.const(126 << 23, ints)
    half = tirx.reinterpret(_dtype("float32", lanes), scale)
    two = constant(2.0, lanes)
    return let(
        r,
        lambda v: (
            (_polynomial(EXP_TERMS, v, lanes) * (v * v) + v + constant(1.0, lanes)) * half * two
        ),
        lanes,
    )


def sigmoid(value: Any, lanes: int) -> Any:
    """1 / (1 + exp(-x))."""
    one = constant(1.0, lanes)
    return one / (one + exp(constant(0.0, lanes) - value, lanes))


def erf(value: Any, lanes: int) -> Any:
    """The error function, within about 1e-7."""

    def ratio(x: Any) -> Any:
        def of_square(square: Any) -> Any:
            return x * _polynomial(ERF_TOP, square, lanes) / _polynomial(ERF_BOTTOM, square, lanes)

        return let(x * x, of_square, lanes)

    return let(_clip(value, -ERF_LIMIT, ERF_LIMIT, lanes), ratio, lanes)


def _dtype(scalar: str, lanes: int) -> str:
    return f"{scalar}x{lanes}" if lanes > 1 else scalar


def _polynomial(terms: tuple[float, ...], x: Any, lanes: int) -> Any:
    result = constant(terms[0], lanes)
    for term in terms[1:]:
        result = result * x + constant(term, lanes)
    return result


def _clip(value: Any, low: float, high: float, lanes: int) -> Any:
    # Constants first: the hardware's max and min return their second operand when it is NaN, as
    # PyTorch does.
    return tirx.min(constant(high, lanes), tirx.max(constant(low, lanes), value))


def _relu(value: Any, lanes: int) -> Any:
    return tirx.max(constant(0.0, lanes), value)


def _hardsigmoid(value: Any, lanes: int) -> Any:
    return _clip(value + constant(3.0, lanes), 0.0, 6.0, lanes) * constant(1.0 / 6.0, lanes)


def _leaky_relu(activation: Activation, value: Any, lanes: int) -> Any:
    return let(
        value,
        lambda x: (
            _relu(x, lanes) + constant(activation.slope, lanes) * tirx.min(constant(0.0, lanes), x)
        ),
        lanes,
    )


def _silu(value: Any, lanes: int) -> Any:
    one, zero = constant(1.0, lanes), constant(0.0, lanes)
    return let(value, lambda x: x / (one + exp(zero - x, lanes)), lanes)


def _gelu(value: Any, lanes: int) -> Any:
    half, root = constant(0.5, lanes), constant(0.7071067811865476, lanes)
    return let(value, lambda x: half * x * (constant(1.0, lanes) + erf(x * root, lanes)), lanes)


def _gelu_tanh(value: Any, lanes: int) -> Any:
    def body(x: Any) -> Any:
        cube = constant(GELU_TANH_CUBE, lanes) * x * x * x
        return x * sigmoid(constant(GELU_TANH_SCALE, lanes) * (x + cube), lanes)

    return let(value, body, lanes)


def tanh(value: Any, lanes: int) -> Any:
    """2 sigmoid(2 x) - 1: an absolute error of about 1e-7."""
    two, one = constant(2.0, lanes), constant(1.0, lanes)
    return two * sigmoid(two * value, lanes) - one


_FUNCTIONS: dict[str, Callable[[Activation, Any, int], Any]] = {
    "none": lambda _, x, lanes: x,
    "relu": lambda _, x, lanes: _relu(x, lanes),
    "relu6": lambda _, x, lanes: _clip(x, 0.0, 6.0, lanes),
    "clip": lambda a, x, lanes: _clip(x, a.low, a.high, lanes),
    "leaky_relu": _leaky_relu,
    "hardsigmoid": lambda _, x, lanes: _hardsigmoid(x, lanes),
    "hardswish": lambda _, x, lanes: let(x, lambda v: v * _hardsigmoid(v, lanes), lanes),
    "sigmoid": lambda _, x, lanes: sigmoid(x, lanes),
    "silu": lambda _, x, lanes: _silu(x, lanes),
    "tanh": lambda _, x, lanes: tanh(x, lanes),
    "gelu": lambda _, x, lanes: _gelu(x, lanes),
    "gelu_tanh": lambda _, x, lanes: _gelu_tanh(x, lanes),
    "exp": lambda _, x, lanes: exp(x, lanes),
}

ACTIVATIONS = tuple(_FUNCTIONS)
NONE = Activation()
