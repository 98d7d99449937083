"""Files from strangers: what would run code is refused, what is damaged gives an error of ours."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from subpc.errors import ModelFileError, SubpcError
from subpc.frontend.import_model import import_model
from tests.frontend.files.archives import Malicious
from tests.frontend.small_model import ARCH, SHAPE, WRITERS, Small, save_program, save_script


@pytest.fixture(scope="module")
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


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
    save_program(model, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code = f"__import__('os').mkdir('{mark}')"
    for name in members:
        if (kind == "pt2 sample inputs" and "sample_inputs" in name) or (
            kind == "pt2 pickled weight" and name.endswith("weight_0")
        ):
            members[name] = buffer.getvalue()
        elif kind == "pt2 pickled weight" and name.endswith("weights_config.json"):
            members[name] = members[name].replace(b'"use_pickle": false', b'"use_pickle": true')
        elif kind == "pt2 expression" and "/models/" in name:
            members[name] = members[name].replace(
                b'{"as_int": 8}',
                json.dumps({"as_expr": {"expr_str": code, "hint": None}}).encode(),
                1,
            )
        elif kind == "pt2 operator" and "/models/" in name:
            members[name] = members[name].replace(b"torch.ops.aten.relu.default", b"torch.os.mkdir")
        elif kind == "pt2 guard" and "/models/" in name:
            members[name] = members[name].replace(
                b'"guards_code": []', json.dumps({"guards_code": [code]})[1:-1].encode()
            )
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
    assert ("could run" in str(caught.value)) == (
        kind != "plain pickle"
    )  # which is no file of PyTorch's to begin with
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

    save_script(Writes(), tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="reads or writes files"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


def test_pickled_module_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.ReLU()), tmp_path / "m.pt")
    with pytest.raises(ModelFileError) as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE])
    assert all(
        words in str(caught.value)
        for words in ("Sequential", "--arch", "torch.export.save", "--trust-pickle")
    )
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], trust_pickle=True)
    assert "unpickled" in imported.notes[0]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pt2", ".safetensors", ".onnx"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02.", b"hello, world", b"\0" * 64, b"\xff" * 4096]
)
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


def _zip(
    path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED
) -> Path:
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
def test_wrong_zip_files(
    members: list[tuple[str, bytes]], compression: int, words: str, tmp_path: Path
) -> None:
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
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_files_give_our_errors_only(
    data: st.DataObject, valid_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = data.draw(st.sampled_from(sorted(valid_files)))
    content = bytearray(valid_files[name])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for position in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=4)):
        if content:
            content[position] = data.draw(st.integers(0, 255))
    _tolerates(tmp_path / name, bytes(content))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x08\0\0\0\0\0\0\0{"]),
    tail=st.binary(max_size=200),
)
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


def test_a_pipe_is_no_model_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="device or pipe"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)


def test_names_of_kilobytes_are_cut(tmp_path: Path) -> None:
    torch.save({"\x1b[2J" * 10_000: torch.ones(1)}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError) as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    assert len(str(caught.value)) < 600
    assert "\x1b" not in str(caught.value)
