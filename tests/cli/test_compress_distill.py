"""`subpc compress ... --distill`: what was learnt is in the file, which is as small as before, and
nothing is written where it cannot be learnt."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import subpc
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.distill.config import DistillConfig
from subpc.cli.main import run
from subpc.compiler.compile_model import compile
from subpc.errors import ConfigError
from subpc.frontend.architectures.build import build_arch
from tests.algorithms.file_format.reader import load_compressed
from tests.cli.network import RESNET, Capture

SHAPE = ["--shape", "1,3,16,16"]
SHORT = ["--distill-steps", "12", "--distill-rate", "0.003"]
METHODS = {
    "blocks": ["--sparsity", "0.5", "--criterion", "l1", "--compensation", "none"],
    "dfmpc": ["--low-bits", "2", "--high-bits", "4"],
    "udfc": ["--ratio", "0.3", "--bits", "6"],
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder, draw = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for index in range(16):
        pixels = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_stays_as_small(
    method: str, weights: Path, images: Path, tmp_path: Path, capsys: Capture
) -> None:
    plain, learnt = tmp_path / "plain.pt", tmp_path / "learnt.pt"
    command = ["compress", method, str(weights), *METHODS[method], *SHAPE]
    assert run([*command, "--calibration", str(images), "-o", str(plain)]) == 0
    capsys.readouterr()
    assert run([*command, "--distill", str(images), *SHORT, "-o", str(learnt), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["inputs"] == f"16 from {images}"
    (note,) = [note for note in report["notes"] if note.startswith("learnt from the float network")]
    assert f"12 steps on 16 from {images} images" in note
    before, after = (load_compressed(path) for path in (plain, learnt))
    assert after.blocks == before.blocks
    assert abs(learnt.stat().st_size - plain.stat().st_size) < 0.02 * plain.stat().st_size
    assert {name: codes.bits for name, codes in after.packed.items()} == {
        name: codes.bits for name, codes in before.packed.items()
    }
    if method == "blocks":
        assert "nothing is changed" not in str(report["notes"])
        assert any(
            not torch.equal(value, before.state_dict[key])
            for key, value in after.state_dict.items()
        )
    compiled = compile(learnt, shapes=[(1, 3, 16, 16)])
    assert any(layer.n for layer in compiled.report.layers) == (method == "blocks")
    assert sorted(path.name for path in tmp_path.glob("learnt*")) == ["learnt.pt"]


def test_generated_images_and_python(weights: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "net.pt"
    command = ["compress", "blocks", str(weights), *METHODS["blocks"], *SHAPE]
    generated = ["--distill", "12", "--synthetic-steps", "2"]
    assert run([*command, *generated, *SHORT, "-o", str(output)]) == 0
    assert "learnt from the float network in 12 steps on 12 generated images" in " ".join(
        capsys.readouterr().out.split()
    )
    net = build_arch(RESNET, in_channels=3)
    net.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    config = BlockConfig(criterion="l1", compensation="none")
    _, report = subpc.compress(
        *(net, config),
        images=torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        distill=DistillConfig(steps=2),
    )
    assert "in 2 steps on 16 given images" in str(report.notes)
    with pytest.raises(ConfigError, match="distill needs images to learn from"):
        subpc.compress(net, config, distill=DistillConfig())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--distill", "no/such/folder"], "no/such/folder does not exist; accepted: a folder of"),
        (["--distill", "2", "--synthetic-steps", "0"], "2 images are too few to learn from"),
        (["--distill", "1"], "1 synthetic images; 2 to 4096"),
        (["--distill", "8", "--distill-rate", "nan"], "rate is nan; accepted: numbers"),
        (["--distill", "8", "--distill-steps", "0"], "steps is 0; accepted: whole numbers"),
        (["--distill", "8", "--distill-minutes", "-1"], "minutes is -1.0; accepted"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    options: list[str], reason: str, weights: Path, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "out" / "net.pt"
    output.parent.mkdir()
    command = ["compress", "blocks", str(weights), *METHODS["blocks"], *SHAPE]
    assert run([*command, *options, "-o", str(output)]) != 0
    assert reason in capsys.readouterr().err
    assert not list(output.parent.iterdir())
