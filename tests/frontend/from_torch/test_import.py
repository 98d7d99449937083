"""PyTorch networks through the importer: the same numbers as eager, the names and spellings that
passes rely on."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from subpc.demo.random_networks import set_statistics
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.import_model import import_model
from subpc.frontend.imported_model import ImportedModel
from subpc.frontend.reference import build_reference, run_reference
from subpc.runtime.deviation import share_of_range

TOLERANCE = 1e-4  # of the output's range
NETS = ["mobilenet_v3_small", "shufflenet_v2_x1_0"]  # tests/passes/test_networks.py has the others


class Small(nn.Module):
    """One of everything that has a spelling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        x = (
            nn.functional.hardswish(x)
            + nn.functional.silu(x)
            + nn.functional.relu6(x)
            + x * torch.sigmoid(x)
        )
        return self.fc(self.drop(x.mean([2, 3])))


def seeded(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Batch-norm statistics that are not the identity, so that mistaking one for another shows."""
    torch.manual_seed(0)
    return set_statistics(module, shape)


def relative_error(model: ImportedModel, *pairs: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The largest for these inputs, each with what is expected, as a share of the range of what is
    expected."""
    run, errors = build_reference(model), []
    for x, expected in pairs:
        got, reference = run([x.numpy()])[0], expected.numpy()
        assert got.shape == reference.shape
        errors.append(float(np.abs(got - reference).max() / (reference.max() - reference.min())))
    return max(errors)


@pytest.mark.parametrize("name", NETS)
def test_equals_eager(name: str) -> None:
    module, inputs = seeded(build_arch(name), (1, 3, 64, 64)), torch.rand(2, 1, 3, 64, 64)
    (model,) = import_model(module, shapes=[(1, 3, 64, 64)])
    with torch.no_grad():
        expected = [module(x) for x in inputs]
    assert share_of_range(*expected) > 100 * TOLERANCE
    assert relative_error(model, *zip(inputs, expected, strict=True)) < TOLERANCE
    state = module.state_dict()
    assert all(
        np.array_equal(model.params[key], state[name].numpy())
        for key, name in model.param_names.items()
    )


def test_parameters_follow_inputs_under_their_own_names() -> None:
    (model,) = import_model(seeded(Small(), (1, 3, 8, 8)), shapes=[(2, 3, 8, 8)])
    assert [var.name for var in model.module["main"].params] == [*model.input_names, *model.params]
    assert set(model.param_names.values()) == {
        *[
            "conv.weight",
            "bn.weight",
            "bn.bias",
            "bn.running_mean",
            "bn.running_var",
            "fc.weight",
            "fc.bias",
        ]
    }
    assert (model.input_shapes, model.input_dtypes, model.output_names) == (
        ((2, 3, 8, 8),),
        ("float32",),
        ("output",),
    )


def test_spellings() -> None:
    script = import_model(seeded(Small(), (1, 3, 8, 8)), shapes=[(1, 3, 8, 8)])[0].module.script()
    assert script.count("R.clip(") == 2  # hard-swish and relu6
    assert script.count("R.divide(") == 1
    assert script.count("R.nn.adaptive_avg_pool2d(") == 1
    assert not any(f"R.{op}(" in script for op in ("mean", "nn.dropout", "nn.relu6", "nn.pad"))


def test_padding_before_a_convolution_becomes_its_own() -> None:
    module = nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(2, 4, 3)).eval()
    (model,) = import_model(module, shapes=[(1, 2, 8, 8)])
    assert "padding=[2, 0, 3, 1]" in model.module.script()
    assert "R.nn.pad" not in model.module.script()
    x = torch.rand(1, 2, 8, 8)
    with torch.no_grad():
        assert relative_error(model, (x, module(x))) < TOLERANCE


@pytest.mark.parametrize(
    "pad", [nn.ConstantPad2d(1, 1.0), nn.ReflectionPad2d(1), nn.ZeroPad2d((-1, 1, 0, 0))]
)
def test_other_padding_is_kept(pad: nn.Module) -> None:
    module, x = nn.Sequential(pad, nn.Conv2d(2, 4, 3)).eval(), torch.rand(1, 2, 8, 8)
    (model,) = import_model(module, shapes=[(1, 2, 8, 8)])
    with torch.no_grad():
        assert relative_error(model, (x, module(x))) < TOLERANCE


def test_users_module_is_left_alone() -> None:
    module = Small().half().train()
    before = copy.deepcopy(module.state_dict())
    (model,) = import_model(module, shapes=[(1, 3, 8, 8)])
    assert module.training
    assert all(
        torch.equal(value, before[name]) and value.dtype == before[name].dtype
        for name, value in module.state_dict().items()
    )
    assert any("float16 to float32" in note for note in model.notes)
    assert all(value.dtype == np.float32 for value in model.params.values())


def test_training_mode_gives_the_inference_result() -> None:
    module, x = seeded(Small(), (1, 3, 8, 8)).train(), torch.rand(4, 3, 8, 8)
    (model,) = import_model(module, shapes=[(4, 3, 8, 8)])
    with torch.no_grad():
        assert relative_error(model, (x, copy.deepcopy(module).eval()(x))) < TOLERANCE


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "contain NaN"), (float("inf"), "contain infinite values")]
)
def test_weights_that_are_no_numbers_are_named(value: float, words: str) -> None:
    module = Small()
    with torch.no_grad():
        module.conv.weight[0, 0, 0, 0] = value
    (model,) = import_model(module, shapes=[(1, 3, 8, 8)])
    assert [note for note in model.notes if words in note and "layer conv " in note]


def test_several_shapes_and_outputs() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"low": x.relu(), "high": x + 1}

    models = import_model(Two(), shapes=[(1, 3, 4, 4), (2, 3, 4, 4)])
    assert [model.input_shapes[0][0] for model in models] == [1, 2]
    assert models[0].output_names == ("low", "high")
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    low, high = run_reference(models[1], [x])
    assert np.array_equal(low, np.maximum(x, 0))
    assert np.array_equal(high, x + 1)


def test_all_unsupported_operators_are_listed_with_their_layers() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(x)[0]

    class Odder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).real

    module = nn.Sequential()
    module.add_module("first", Odd())
    module.add_module("second", Odder())
    with pytest.raises(UnsupportedModelError) as caught:
        import_model(module, shapes=[(1, 3, 8, 8)])
    message = str(caught.value)
    assert "linalg_qr" in message
    assert "in first" in message
    assert "fft" in message
    assert "in second" in message


@pytest.mark.parametrize("shape", [(3, 64), (1, 4, 64, 64), (1, 3, 0, 64), (1, 3, -1, 64), ()])
def test_shape_the_network_rejects(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        import_model(Small(), shapes=[shape])
    assert len(str(caught.value).splitlines()) <= 2


def test_inputs_must_be_said_and_be_float32() -> None:
    with pytest.raises(ConfigError, match="--shape"):
        import_model(Small())
    with pytest.raises(ConfigError, match="float32"):
        import_model(Small(), example_inputs=torch.rand(1, 3, 8, 8).double())
    with pytest.raises(ConfigError, match="not a int"):
        import_model(3)  # type: ignore[arg-type]


def test_control_flow_on_values_is_refused() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedModelError, match=r"torch\.export"):
        import_model(Branch(), shapes=[(1, 3)])


READY = nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", "did you mean"),
        ("timm:nothing_here", "timm has no model"),
        ("nowhere.at.all:f", "not there"),
        ("math:sqrt", "cannot be built"),
        ("math:pi", "pi is a float; a function or class"),
        (f"{__name__}:READY", "READY is a network that is built already; a function or class"),
    ],
)
def test_unknown_architecture(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_arch(name)


@dataclass
class Scores:
    values: torch.Tensor


class OwnResult(nn.Module):
    def forward(self, x: torch.Tensor) -> Scores:
        return Scores(x + 1)


def test_a_result_of_a_class_of_its_own_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match="OwnResult returns") as caught:
        import_model(OwnResult(), shapes=[(1, 3)])
    assert "Scores, a class of its own" in str(caught.value) and "http" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
