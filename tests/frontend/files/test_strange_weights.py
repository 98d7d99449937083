"""Weights that are no plain floats are refused in words or put together; one number alone, and one
key more, are no obstacle."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from subpc.errors import ConfigError, ModelFileError, SubpcError, UnsupportedModelError
from subpc.frontend.architectures.torchvision_import import import_torchvision
from subpc.frontend.files.load_file import load_torch_file
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference
from tests.frontend.small_model import ARCH, SHAPE, Small

Make = Callable[[torch.Tensor], torch.Tensor]
STRANGE: dict[str, Make] = {
    "sparse_coo": lambda w: w.to_sparse(),
    "qint8": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "float8_e4m3fn": lambda w: w.to(torch.float8_e4m3fn),
    "meta": lambda w: w.to("meta"),
}
UNSCALED: dict[str, Make] = {
    "int8": lambda w: (w * 100).to(torch.int8),
    "uint8": lambda w: (w * 100).to(torch.uint8),
    "bool": lambda w: w > 0,
    "complex64": lambda w: w.to(torch.complex64),
}
IN_MEMORY: dict[str, Make] = {**STRANGE, **UNSCALED, "_mkldnn": lambda w: w.to_mkldnn()}


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def lines(error: SubpcError) -> str:
    assert len(str(error).splitlines()) <= 2
    return str(error)


@pytest.mark.parametrize("kind", [*STRANGE, *UNSCALED])
def test_state_dicts_with_other_weights_are_refused(
    kind: str, model: Small, tmp_path: Path
) -> None:
    weight = IN_MEMORY[kind](model.conv.weight.detach())
    torch.save({**model.state_dict(), "conv.weight": weight}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=kind) as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    assert "conv.weight" in lines(caught.value)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", *UNSCALED])
def test_safetensors_with_other_weights_are_refused(
    kind: str, model: Small, tmp_path: Path
) -> None:
    make = {**STRANGE, **UNSCALED}[kind]
    save_file(
        {**model.state_dict(), "conv.weight": make(model.conv.weight.detach())},
        tmp_path / "m.safetensors",
    )
    with pytest.raises(ModelFileError, match=kind):
        import_model(tmp_path / "m.safetensors", shapes=[SHAPE], arch=ARCH)


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_modules_with_other_weights_are_refused(kind: str, model: Small) -> None:
    model.conv.weight = nn.Parameter(
        IN_MEMORY[kind](model.conv.weight.detach()), requires_grad=False
    )
    with pytest.raises(UnsupportedModelError, match=kind) as caught:
        import_model(model, example_inputs=torch.rand(SHAPE))
    lines(caught.value)


class Holds(nn.Module):
    """Its weight is neither a parameter nor a buffer."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.inner.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.inner.weight)


@pytest.mark.parametrize("kind", [*STRANGE, "_mkldnn"])
def test_plain_attributes_of_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"inner\.weight is .*{kind}") as caught:
        import_model(
            Holds(IN_MEMORY[kind](torch.rand(4, 3, 3, 3))), example_inputs=torch.rand(SHAPE)
        )
    lines(caught.value)


INPUTS: dict[str, Callable[[], torch.Tensor]] = {
    **{
        kind: lambda make=make: make(torch.rand(SHAPE))
        for kind, make in IN_MEMORY.items()
        if kind not in ("int8", "uint8", "bool")
    },
    "nested": lambda: torch.nested.nested_tensor([torch.rand(SHAPE[1:])]),
    "fake": lambda: FakeTensorMode().from_tensor(torch.rand(SHAPE)),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_of_other_kinds_are_refused(kind: str, model: Small) -> None:
    with pytest.raises(ConfigError, match=kind) as caught:
        import_model(model, example_inputs=INPUTS[kind]())
    lines(caught.value)


def test_arrays_of_numpy_are_inputs(model: Small) -> None:
    (imported,) = import_model(model, example_inputs=np.zeros(SHAPE, np.float32))
    assert imported.input_shapes == (SHAPE,)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}, lambda s: {"model": s}]
)
def test_an_expanded_view_of_a_terabyte_is_refused(
    wrap: Callable[[Any], Any], model: Small, tmp_path: Path
) -> None:
    view = torch.zeros(1).expand(1 << 20, 1 << 18)
    torch.save(wrap({**model.state_dict(), "conv.weight": view}), tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="larger than what the file holds"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)


def test_many_views_of_one_storage_count_together(model: Small, tmp_path: Path) -> None:
    views = {f"view{i}": torch.zeros(1).expand(1 << 20, 8) for i in range(9)}
    torch.save({**model.state_dict(), **views}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="larger than what the file holds"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)


def _pruned(model: Small) -> None:
    prune.l1_unstructured(model.conv, "weight", 0.5)


COMPUTED: dict[str, Callable[[Small], Any]] = {
    "pruning": _pruned,
    "weight norm": lambda model: weight_norm(model.conv),
    "weight norm, parametrized": lambda model: parametrizations.weight_norm(model.conv),
    "spectral norm": lambda model: spectral_norm(model.fc),
    "spectral norm, parametrized": lambda model: parametrizations.spectral_norm(model.fc),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", COMPUTED)
def test_weights_in_parts_are_put_together(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Small()
    COMPUTED[kind](model)
    model(torch.rand(SHAPE))
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.mul_(1.5 if name.endswith(("_g", "original0")) else 1)
    model.eval()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    assert any(kind.partition(",")[0] in note for note in imported.notes)
    x = torch.rand(SHAPE)
    assert np.abs(run_reference(imported, [x.numpy()])[0] - model(x).detach().numpy()).max() < 1e-5


def test_half_of_the_parts_is_no_weight(model: Small, tmp_path: Path) -> None:
    prune.l1_unstructured(model.conv, "weight", 0.5)
    state = model.state_dict()
    del state["conv.weight_mask"]
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"conv\.weight_orig"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.encoder."])
def test_a_checkpoint_with_one_key_more(prefix: str, model: Small, tmp_path: Path) -> None:
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()} | {
        "loss.weight": torch.ones(10)
    }
    torch.save(
        {"epoch": 3, "global_step": 7, "state_dict": state, "callbacks": {}}, tmp_path / "m.ckpt"
    )
    (imported,) = import_model(tmp_path / "m.ckpt", shapes=[SHAPE], arch=ARCH)
    assert any("loss.weight" in note for note in imported.notes)


class Scaled(nn.Module):
    """Multiplies by single numbers, as heads of detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("offset", torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x * self.scale) * self.scale + self.offset


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "form", [lambda m: m, torch.jit.script, lambda m: torch.export.export(m, (torch.rand(SHAPE),))]
)
def test_parameters_of_one_number(form: Callable[[nn.Module], Any]) -> None:
    model = Scaled().eval()
    x = torch.rand(SHAPE)
    (imported,) = import_model(form(model), example_inputs=x)
    assert np.abs(run_reference(imported, [x.numpy()])[0] - model(x).detach().numpy()).max() < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_scripts_that_were_never_in_a_file(model: Small) -> None:
    x = torch.rand(SHAPE)
    (imported,) = import_model(torch.jit.script(model), example_inputs=x)
    assert set(imported.param_names.values()) == {
        "conv.weight",
        "conv.bias",
        "fc.weight",
        "fc.bias",
    }
    assert np.abs(run_reference(imported, [x.numpy()])[0] - model(x).detach().numpy()).max() < 1e-5


def test_a_whole_network_of_torchvision_is_unpickled_where_trusted(tmp_path: Path) -> None:
    torch.save(import_torchvision().models.mobilenet_v2(weights=None), tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="trust-pickle"):
        load_torch_file(tmp_path / "m.pt")
    assert isinstance(load_torch_file(tmp_path / "m.pt", trust_pickle=True).model, nn.Module)


@pytest.mark.parametrize("entry", ["model", "ema", "net"])
def test_a_network_beside_an_epoch_is_taken_where_trusted(
    entry: str, model: Small, tmp_path: Path
) -> None:
    torch.save({"epoch": 3, entry: copy.deepcopy(model).half()}, tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], trust_pickle=True)
    assert any(f"entry {entry!r}" in note for note in imported.notes)
    x = torch.rand(SHAPE)
    assert np.abs(run_reference(imported, [x.numpy()])[0] - model(x).detach().numpy()).max() < 1e-2


def test_averaged_weights_go_before_the_last_ones(model: Small, tmp_path: Path) -> None:
    torch.save({"model": nn.Conv2d(3, 4, 1), "ema": model}, tmp_path / "m.pt")
    assert isinstance(load_torch_file(tmp_path / "m.pt", trust_pickle=True).model, Small)


@pytest.mark.parametrize(
    ("content", "words"),
    [([1, 2], "a list"), (torch.ones(3), "a Tensor"), ({"a": 1.5}, "not tensors: a")],
)
def test_what_is_no_network_is_not_said_to_lack_an_architecture(
    content: Any, words: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=words):
        load_torch_file(tmp_path / "m.pt")


def test_names_that_do_not_fit_are_told_without_the_prefix_that_all_have(
    model: Small, tmp_path: Path
) -> None:
    state = {
        f"net.{key}": value for key, value in model.state_dict().items() if key != "fc.bias"
    } | {"net.fc.scale": torch.ones(2)}
    torch.save({**state, "loss.weight": torch.ones(3)}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"1 missing: fc\.bias; 1 unexpected: fc\.scale\."):
        load_torch_file(tmp_path / "m.pt", arch=ARCH)


def test_a_damaged_deflate_stream(model: Small, tmp_path: Path) -> None:
    import zipfile

    torch.save(model.state_dict(), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    content = bytearray((tmp_path / "m.pt").read_bytes())
    middle = content.index(b"data.pkl") + 40
    content[middle : middle + 30] = b"\xff" * 30
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
