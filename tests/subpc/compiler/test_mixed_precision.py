"""subpc.compile(precision="auto"): what runs is the network that was chosen, and the report says
why."""

from typing import Any

import pytest
import torch
import tvm
from torch import nn

import subpc
from subpc.calibration import mixed
from subpc.calibration.interpret import Interpreter
from subpc.errors import ConfigError
from tests.subpc.calibration.test_mixed import SHAPE, Chain, images


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[tvm.IRModule]:
    """The networks that were chosen in a test."""
    modules: list[tvm.IRModule] = []

    def mix(*args: Any) -> mixed.Mixed:
        found = original(*args)
        modules.append(found.module)
        return found

    original = mixed.mix
    monkeypatch.setattr(mixed, "mix", mix)
    return modules


@pytest.mark.parametrize("cpu", ["native", "haswell", "skylake-avx512"])
def test_what_runs_is_the_network_that_was_chosen(cpu: str, chosen: list[tvm.IRModule]) -> None:
    compiled = subpc.compile(
        Chain(outliers=True),
        images(1),
        precision="auto",
        calibration=images(8),
        target=f"llvm -mcpu={cpu}",
    )
    report = {layer.name: layer for layer in compiled.report.layers}
    assert {"c", "d"} <= {name for name, layer in report.items() if layer.precision == "int8"}
    assert report["b"].why_float.startswith("too much noise in int8 (")
    # Without VNNI converting what it hands to b may be more than a gains.
    assert report["a"].precision == "int8" or report["a"].why_float.startswith("not faster in int8")
    assert "as fast as in float32" in report["c"].why_integers
    assert report["b"].precision == "float32"
    assert "1 too much noise in int8" in compiled.report.summary
    count = sum(layer.precision == "int8" for layer in report.values())
    (note,) = [note for note in compiled.report.metadata.notes if note.startswith("auto: ")]
    assert note.startswith(f"auto: {count} of 4 layers in int8, noise ")
    x = images(12)[11:]
    (expected,) = Interpreter(chosen[0], dtype=torch.float64).run(x)
    deviation = (torch.as_tensor(compiled(x)).double() - expected).abs()
    # A tie may send a value to the neighbouring code, no more.
    assert float(deviation.max()) < 0.02 * float(expected.std())
    assert float(deviation.mean()) < 1e-3 * float(expected.std())


@pytest.mark.parametrize("target", ["llvm", "llvm -mcpu=x86-64"])
def test_a_target_without_instructions_for_bytes_computes_floats(target: str) -> None:
    compiled = subpc.compile(Chain(outliers=False), images(1), precision="auto", target=target)
    assert compiled.report.precision == "float32"
    (note,) = [note for note in compiled.report.metadata.notes if note.startswith("auto: ")]
    assert note.startswith("auto: everything in float32, because the target has generic alone")


def test_values_that_are_not_finite_are_no_error() -> None:
    net = Chain(outliers=False)
    with torch.no_grad():
        net.c.weight[0, 0, 0, 0] = torch.inf
    report = subpc.compile(net, images(1), precision="auto").report
    assert report.precision == "float32"
    assert any("weights that are not finite" in note for note in report.metadata.notes)


def test_several_shapes_are_chosen_for_one_by_one() -> None:
    shapes = [SHAPE, (2, *SHAPE[1:])]
    compiled = subpc.compile(Chain(outliers=False), shapes=shapes, precision="auto")
    for shape in shapes:
        assert compiled(torch.rand(shape)).shape == (shape[0], 64, 24, 24)


def test_torch_compile_takes_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
    x = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        expected = net(x)
        found = torch.compile(net, backend="subpc", options={"precision": "auto"})(x)
    assert 0 < float((found - expected).abs().max()) < 0.1 * float(expected.std())


def test_other_words_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match="accepted: float32, int8, auto"):
        subpc.compile(Chain(outliers=False), images(1), precision="fast")
