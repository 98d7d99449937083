"""The library file: what is written, and every way in which a file can be wrong."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from subpc.errors import ModelFileError, TargetError
from subpc.library import artifact
from subpc.library.artifact import FOOTER, PAGE, open_artifact, read_metadata
from subpc.runtime.model import CompiledModel, load

Maker = Callable[..., Path]


def test_what_is_written_is_read(toy: Path, toy_weights: np.ndarray) -> None:
    opened = open_artifact(toy)
    np.testing.assert_array_equal(opened.weights, toy_weights)
    assert opened.weights.ctypes.data % PAGE == 0
    assert not opened.weights.flags.writeable
    assert opened.metadata == read_metadata(toy)
    assert [f.symbol for f in opened.metadata.functions] == ["toy_0", "toy_1"]


def test_a_library_without_weights(toy_object: Path, tmp_path: Path) -> None:
    metadata = read_metadata(_write(tmp_path / "a.so", toy_object, np.zeros(0, np.float32)))
    assert metadata.model == "toy"


def _write(path: Path, code: Path, weights: np.ndarray) -> Path:
    from subpc.library.report import Metadata

    metadata = Metadata(
        model="toy",
        target="llvm",
        features=(),
        precision="float32",
        tuned=False,
        functions=(),
        layers=(),
        versions={"a": "1"},
    )
    artifact.write(path, code, weights, metadata)
    return path


def _positions(size: int) -> list[int]:
    ends = [0, 1, 4, 100, size - FOOTER.size, size - 1]
    return sorted(
        {*ends, *range(0, size, max(1, size // 40)), *range(size - FOOTER.size - 8, size)}
    )


def test_a_flipped_bit_anywhere_is_found(toy: Path, tmp_path: Path) -> None:
    good = toy.read_bytes()
    bad = tmp_path / "bad.so"
    for position in _positions(len(good)):
        bad.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        with pytest.raises(ModelFileError):
            load(bad)


def test_a_cut_or_prolonged_file_is_found(toy: Path, tmp_path: Path) -> None:
    good = toy.read_bytes()
    bad = tmp_path / "bad.so"
    for length in _positions(len(good)):
        bad.write_bytes(good[:length])
        with pytest.raises(ModelFileError):
            load(bad)
    bad.write_bytes(good + b"\0")
    with pytest.raises(ModelFileError, match="not a subpc library"):
        load(bad)


def test_a_foreign_library_is_not_executed(toy_object: Path) -> None:
    with pytest.raises(ModelFileError, match="not a subpc library"):
        load(toy_object)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" + bytes(5000)])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(content)
    with pytest.raises(ModelFileError, match="not a subpc library"):
        load(tmp_path / "a.so")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        load(tmp_path / "none.so")
    with pytest.raises(ModelFileError, match="directory"):
        load(tmp_path)


def test_a_newer_format_is_named(toy: Path, tmp_path: Path) -> None:
    good = bytearray(toy.read_bytes())
    good[len(good) - FOOTER.size + 8] += 1
    (tmp_path / "new.so").write_bytes(good)
    with pytest.raises(
        ModelFileError,
        match=r"a newer subpc: it has library format 4, this one reads format 3\.\nCompile",
    ):
        load(tmp_path / "new.so")


def test_a_missing_cpu_feature_is_named(make_toy: Maker, tmp_path: Path) -> None:
    path = make_toy(tmp_path / "a.so", ("sse2", "avx999f", "amx_teleport"))
    with pytest.raises(
        TargetError, match=r"'llvm' and needs avx999f, amx_teleport, which this CPU"
    ):
        load(path)
    assert read_metadata(path).features == ("sse2", "avx999f", "amx_teleport")


def test_a_model_for_another_cpu_can_be_saved_but_not_called(
    make_toy: Maker, tmp_path: Path
) -> None:
    model = CompiledModel(open_artifact(make_toy(tmp_path / "a.so", ("avx999f",))))
    assert model.save(tmp_path / "b.so").read_bytes() == (tmp_path / "a.so").read_bytes()
    assert model.report.metadata.model == "toy"
    with pytest.raises(TargetError, match="avx999f"):
        model(np.zeros((1, 3, 16, 16), np.float32))


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, numpy as np\nfrom subpc.library import artifact,"
        " report\npathlib.Path(sys.argv[1] + '.code').write_bytes(b'\\x7fELF' + bytes(5000))\ndata"
        " = report.Metadata(\n    model='m', target='llvm', features=(), precision='float32',"
        " tuned=False, functions=(), layers=())\nweights = np.ones(1 << 21, np.float32)\nwhile"
        " True: artifact.write(sys.argv[1], pathlib.Path(sys.argv[1] + '.code'), weights, data)\n"
    )
    target = tmp_path / "model.so"
    for delay in (0.0, 0.003, 0.01, 0.02):
        target.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code, str(target)])
        while not target.exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert read_metadata(target).model == "m"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("yolo.onnx", "subpc compile yolo.onnx -o yolo.so"),
        ("net.pt2", "subpc compile net.pt2 -o net.so"),
        ("weights.safetensors", "subpc compile weights.safetensors -o weights.so"),
        ("image.png", "subpc compile MODEL -o NAME.so"),
        ("lib.so", "subpc compile MODEL -o lib.so"),
    ],
)
def test_the_advice_for_a_file_that_is_no_library_does_not_replace_it(
    name: str, advice: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"not a library" * 100)
    with pytest.raises(ModelFileError, match=f"make one with: {advice}$"):
        load(tmp_path / name)
