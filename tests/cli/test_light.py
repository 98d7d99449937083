"""Running a library needs neither PyTorch nor TVM's compiler, and help needs nothing at all."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from subpc.frontend.from_torch.to_onnx_file import export_onnx
from tests.frontend.small_model import SHAPE, WRITERS, Small

# Made to look as if not installed. TVM's Python package may be found (its folder holds the
# runtime), but not imported.
PROLOGUE = """
import sys
for name in ("torch", "torchvision", "onnx", "tvm_ffi.core", "safetensors"):
    sys.modules[name] = None
from subpc.cli.main import run
code = run(sys.argv[1:])
heavy = ("torch", "tvm", "tvm_ffi", "onnx")
# A package whose import fails leaves modules of it behind, but not itself.
loaded = [name for name in heavy if sys.modules.get(name) is not None]
assert not loaded, loaded
"""


def light(
    code: str, *arguments: object, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path} if path else None
    command = [sys.executable, "-c", PROLOGUE + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_run_and_profile_and_inspect_without_torch_tvm_and_linker(
    toy: Path, tmp_path: Path, toy_expected: object
) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = (
        ("run", toy, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy"),
        ("profile", toy),
        ("inspect", toy),
    )
    for line in arguments:
        result = light("sys.exit(code)", *line, path=str(tmp_path))
        assert (result.returncode, result.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), toy_expected(x))  # type: ignore[operator]


def test_help_imports_no_numpy() -> None:
    result = light("print('numpy' in sys.modules, 'rich' in sys.modules)", "--help")
    assert result.stdout.endswith("False False\n")


def test_compile_without_its_packages_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    result = light(
        "sys.exit(code)",
        "compile",
        tmp_path / "model.onnx",
        "-o",
        tmp_path / "m.so",
        "--target",
        "llvm",
    )
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: this needs the package \S+, which is not installed\.\nInstall it with: pip install"
        r" \S+\n",
        result.stderr,
    )
    assert not (tmp_path / "m.so").exists()


# {there} is a library, {none} and what else has a name of "none" is not there.
MISSING_FILES = {
    "compile": "compile {none}",
    "tuning": "compile {there} --tuning {none}",
    "run": "run {none} --input {there}",
    "input": "run {there} --input {none}",
    "named input": "run {there} --input image={none}",
    "image": "run {there} --image {none}",
    "labels": "run {there} --input {x} --labels {none}",
    "bench": "bench {none}",
    "bench model": "bench {there} --compare torch --model {none}",
    "profile": "profile {none}",
    "profile model": "profile {there} --html page.html --compare torch --model {none}",
    "profile bench": "profile {there} --html page.html --bench {none}",
    "compare a": "compare {none} {there}",
    "compare b": "compare {there} {none}",
    "compare data": "compare {there} {there} --data {none}",
    "inspect": "inspect {none}",
    "tune": "tune {none} --db tune.jsonl",
    "udfc": "compress udfc {none} -o o.pt",
    "dfmpc": "compress dfmpc {none} -o o.pt",
    "blocks": "compress blocks {none} -o o.pt",
    "calibration": "compress blocks {there} --calibration {none} -o o.pt",
    "eval": "compress blocks {there} --max-drop 1 --eval fashion-mnist:{none} -o o.pt",
    "training": "compress subp --arch resnet18 --data imagefolder:{none} --epochs 1 -o o.pt",
    "init": "compress subp --arch resnet18 --data fashion-mnist --epochs 1 --init {none} -o o.pt",
    "demo": "demo --image {none}",
}


@pytest.mark.parametrize("case", MISSING_FILES)
def test_a_file_that_is_not_there_is_said_before_torch_is_imported(
    case: str, toy: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    none = tmp_path / "none.pt"
    line = MISSING_FILES[case].format(none=none, there=toy, x=tmp_path / "x.npy")
    result = light("sys.exit(code)", *line.split())
    assert result.returncode in (1, 2)
    assert result.stderr.startswith("error: ")
    assert str(none) in result.stderr
    assert "does not exist" in result.stderr or "No such file" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_model_that_is_not_there_in_words(tmp_path: Path) -> None:
    (tmp_path / "latest.pt").symlink_to("gone.pt")
    result = light("sys.exit(code)", "compile", tmp_path / "nothing.pt")
    assert (result.returncode, result.stderr) == (
        1,
        f"error: {tmp_path / 'nothing.pt'} does not exist.\n",
    )
    result = light("sys.exit(code)", "compile", tmp_path / "latest.pt")
    assert (result.returncode, result.stderr) == (
        1,
        f"error: {tmp_path / 'latest.pt'} is a link to gone.pt, which does not exist.\n",
    )


@pytest.mark.parametrize("kind", ["program.pt2", "script.pt", "m.onnx"])
@pytest.mark.parametrize("use", ["compress", "compare"])
def test_networks_are_compressed_and_compared_without_tvm(
    use: str, kind: str, tmp_path: Path
) -> None:
    if kind == "m.onnx":
        export_onnx(Small(10).eval(), (torch.rand(SHAPE),), tmp_path / kind)
    else:
        WRITERS[kind](Small(10).eval(), tmp_path / kind)
    code = {
        "compress": "load_network(Path(sys.argv[1]), shape=SHAPE)",
        "compare": "side.prepare([SHAPE]); side.run([np.zeros(SHAPE, np.float32)], layers=True)",
    }[use]
    side = (
        "OnnxSide(Path(sys.argv[1]))"
        if kind == "m.onnx"
        else ("TorchSide(Path(sys.argv[1]), None, None)")
    )
    script = f"""
import sys
from pathlib import Path
import numpy as np
sys.modules["tvm"] = None
from subpc.comparison.sides import OnnxSide, TorchSide
from subpc.frontend.load_network import load_network
SHAPE = {SHAPE}
side = {side}
{code}
"""
    command = [sys.executable, "-c", script, str(tmp_path / kind)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
