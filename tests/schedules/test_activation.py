"""Every activation against PyTorch, over the whole range of float32 that a network can reach."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional
from tvm.tirx.script import builder as T

from subpc.calibration.meanings import ACTIVATIONS as REFERENCE
from subpc.passes import ops
from subpc.schedules.activation import ACTIVATIONS, Activation, activate
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import kernel_builder
from subpc.schedules.operand import floats
from subpc.schedules.vector import load, store
from tests.schedules.harness import ISAS, assembly, cpu_supports, run_everywhere

LENGTH = 4096


@dataclass(frozen=True, kw_only=True)
class Apply:
    """y = activation(x) over LENGTH floats."""

    activation: Activation
    lanes: int | None = None
    family: str = "apply"
    operands: tuple[str, ...] = ("x", "y")
    flops: int = LENGTH

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        lanes = self.lanes or isa.lanes
        with kernel_builder(symbol, {"x": floats(LENGTH), "y": floats(LENGTH)}) as frame:
            x, y = frame.buffers
            with T.serial(0, LENGTH // lanes) as i:
                if lanes > 1:
                    store(
                        y,
                        i * lanes,
                        activate(self.activation, load(x, i * lanes, lanes), lanes),
                        lanes,
                    )
                else:
                    T.buffer_store(y, activate(self.activation, x[i], 1), [i])
        assert frame.func is not None
        return frame.func


# What stands behind the kind.
NUMBERS: dict[str, tuple[float, ...]] = {"clip": (-0.25, 1.5), "leaky_relu": (0.1,)}


def expected_of(kind: str, x: torch.Tensor) -> torch.Tensor:
    return REFERENCE[kind](x, *NUMBERS.get(kind, ()))


def activation_of(kind: str) -> Activation:
    return ops.activation_of(" ".join([kind, *map(str, NUMBERS.get(kind, ()))]))


def samples() -> np.ndarray:
    rng = np.random.default_rng(0)
    values: np.ndarray = rng.standard_normal(LENGTH) * np.repeat(
        [0.01, 1.0, 5.0, 40.0], LENGTH // 4
    )
    values[:7] = [0.0, -0.0, 3.0, -3.0, 6.0, 1e-30, -86.97]
    clipped: np.ndarray = np.clip(values, -86.97, 88.7).astype("float32")
    return clipped


def test_every_activation_has_a_reference() -> None:
    assert set(REFERENCE) == set(ACTIVATIONS)


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_matches_pytorch(kind: str, isa: VectorIsa) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    x = samples()
    got = run_everywhere(Apply(activation=activation_of(kind)), [x, np.zeros_like(x)], isa)
    expected = expected_of(kind, torch.tensor(x)).numpy()
    # gelu's left tail is x * (1 - almost 1): the error of erf, times x
    tolerance = {"exp": (1e-6, 0.0), "gelu": (2e-6, 1.5e-6)}.get(kind, (2e-6, 5e-7))
    np.testing.assert_allclose(got, expected, rtol=tolerance[0], atol=tolerance[1])


def test_scalar_form() -> None:
    x = samples()
    kernel = Apply(activation=Activation(kind="silu"), lanes=1)
    np.testing.assert_allclose(
        run_everywhere(kernel, [x, np.zeros_like(x)], ISAS["generic"]),
        functional.silu(torch.tensor(x)).numpy(),
        rtol=2e-6,
        atol=5e-7,
    )


SPECIAL = (
    np.nan,
    np.inf,
    -np.inf,
    3e38,
    -3e38,
    1e30,
    -1e30,
    100,
    -100,
    89,
    88.6,
    -88.6,
    -87.2,
    -86.99,
    -86.97,
    0.0,
    -0.0,
    1e-40,
    -1e-40,
)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("isa", ["generic", "avx512"])
def test_special_values_give_what_pytorch_gives(kind: str, isa: str) -> None:
    x = np.zeros(LENGTH, "float32")
    x[: len(SPECIAL)] = SPECIAL
    got = run_everywhere(Apply(activation=activation_of(kind)), [x, np.zeros_like(x)], ISAS[isa])
    # In float64, because PyTorch's own float32 functions overflow early: gelu(inf) is NaN there.
    expected = expected_of(kind, torch.tensor(x, dtype=torch.float64)).float().numpy()
    np.testing.assert_allclose(
        got[: len(SPECIAL)],
        expected[: len(SPECIAL)],
        rtol=2e-6,
        atol=1e-6 if kind in ("gelu", "tanh") else 2e-35,
    )


@pytest.mark.parametrize("kind", ["gelu", "silu", "tanh"])
def test_no_library_calls(kind: str) -> None:
    text = assembly(Apply(activation=Activation(kind=kind)), ISAS["avx512"])
    assert "call" not in text
    assert "@PLT" not in text


def test_keeps_zero_is_true_to_the_function() -> None:
    zero = torch.zeros(1)
    for kind in ACTIVATIONS:
        assert activation_of(kind).keeps_zero == (expected_of(kind, zero).item() == 0.0)


def test_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown activation 'swishy'"):
        Activation(kind="swishy")
