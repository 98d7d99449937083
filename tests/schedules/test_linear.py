"""Fully connected layers against PyTorch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from subpc.schedules.activation import Activation
from subpc.schedules.isa import AVX512, VectorIsa
from subpc.schedules.linear import Linear
from tests.schedules.harness import ISAS, assembly, cpu_supports, run_everywhere


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 19])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(1, 1), (3, 17), (7, 10), (130, 32), (33, 64), (512, 1000)]
)
def test_linear(rows: int, inputs: int, outputs: int, isa: VectorIsa) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    rng = np.random.default_rng(0)
    x, w, bias = (
        rng.standard_normal(s).astype("float32")
        for s in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    kernel = Linear(rows=rows, inputs=inputs, outputs=outputs, activation=Activation(kind="relu"))
    expected = functional.relu(
        functional.linear(torch.tensor(x), torch.tensor(w), torch.tensor(bias))
    ).numpy()
    got = run_everywhere(
        kernel,
        [x, kernel.pack_weights(w), kernel.pack_bias(bias), np.zeros(rows * outputs, "float32")],
        isa,
    )
    np.testing.assert_allclose(got.reshape(rows, outputs), expected, rtol=1e-4, atol=1e-4)


def test_missing_bias_is_zero() -> None:
    assert not Linear(rows=1, inputs=3, outputs=17).pack_bias(None).any()
    assert Linear(rows=1, inputs=3, outputs=17).pack_bias(None).shape == (32,)


@pytest.mark.parametrize("rows", [1, 8])
def test_loads_are_whole_vectors(rows: int) -> None:
    text = assembly(Linear(rows=rows, inputs=2048, outputs=1024), AVX512)
    assert "Workspace" not in text
    assert "gather" not in text
    assert text.count("vfmadd") >= 8
