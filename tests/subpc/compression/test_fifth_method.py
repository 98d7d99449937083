"""One more compression method, all of it in this file: registered in one place, it is found by
everything that compresses."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import subpc
from subpc.algorithms.config import Config, check_range
from subpc.algorithms.method import SKIP_OPTION, Compressed, Option, Setting
from subpc.algorithms.network.checked_copy import checked_copy, own_weights, set_weight
from subpc.algorithms.registry import METHODS
from subpc.algorithms.report import DataFreeReport, LayerResult
from subpc.cli.main import run
from subpc.progress import Progress
from tests.algorithms.file_format.reader import load_compressed

SIDE = 8
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True, kw_only=True)
class ShrinkConfig(Config):
    """Weights times `factor`, 1 or less, but for the layers in `skip`."""

    factor: float = 0.5
    offsets: bool = True
    mark: int | None = 7
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 0, 1)


class Shrink:
    """See subpc.algorithms.method.CompressionMethod."""

    name = "fifth"
    config: type[ShrinkConfig] = ShrinkConfig
    title = "Make weights small."
    text = "Make the weights of MODEL small."
    examples: tuple[str, ...] = ("fifth model.pt2 --factor 0.1 -o small.pt",)
    without_batch_norms = "weights are made small all the same"
    options: tuple[Option, ...] = (
        Option(setting="factor", help="What weights are multiplied with."),
        Option(setting="offsets", help="Offsets, too."),
        Option(setting="mark", help="Means nothing.", none=0),
        SKIP_OPTION,
    )

    def __init__(self) -> None:
        self.configs: list[ShrinkConfig] = []

    def ladders(self, fixed: frozenset[str]) -> list[list[Setting]]:
        return (
            [] if "factor" in fixed else [[{"factor": factor} for factor in (0.75, 0.5, 0.25, 0.0)]]
        )

    def gentlest(self, config: ShrinkConfig, fixed: frozenset[str]) -> ShrinkConfig:
        return config

    def without(self, config: ShrinkConfig, layers: tuple[str, ...]) -> ShrinkConfig:
        return replace(config, skip=(*config.skip, *layers))

    def summary(self, layers: Sequence[LayerResult]) -> list[str]:
        return [f"{len(layers)} layers made small"]

    def idle(self, config: ShrinkConfig, report: DataFreeReport) -> dict[str, str]:
        return {"mark": "it means nothing", "factor": "it is 1"} if config.factor == 1 else {}

    def run(
        self,
        model: nn.Module,
        config: ShrinkConfig,
        progress: Progress,
        *,
        images: torch.Tensor | None,
        input_shape: tuple[int, ...] | None,
    ) -> Compressed:
        self.configs.append(config)
        small, results = checked_copy(model), {}
        for name, layer in small.named_modules():
            if isinstance(layer, nn.Linear) and name not in config.skip:
                set_weight(layer, layer.weight.detach() * config.factor)
                results[name] = LayerResult(
                    name=name, filters=len(layer.weight), kept=len(layer.weight)
                )
        own_weights(small, model)
        return Compressed(model=small, report=DataFreeReport.of(self.name, small, {}, results))


@pytest.fixture
def fifth(monkeypatch: pytest.MonkeyPatch) -> Shrink:
    method = Shrink()
    monkeypatch.setitem(METHODS, method.name, method)
    return method


class Classifier(nn.Module):
    """Tells a bright image from a dark one as long as its weights are at least a quarter of what
    they were."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * SIDE * SIDE, 2)
        self.fc.weight.data[0].fill_(1.0)
        self.fc.weight.data[1].zero_()
        self.fc.bias.data.copy_(torch.tensor([0.0, 40.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(x.flatten(1))
        return scores


@pytest.fixture
def model(tmp_path: Path) -> Path:
    program = torch.export.export(Classifier().eval(), (torch.rand(1, 3, SIDE, SIDE),))
    torch.export.save(program, tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def test_from_python(fifth: Shrink) -> None:
    network = Classifier().eval()
    small, report = subpc.compress(
        network, ShrinkConfig(factor=0.25), input_shape=(1, 3, SIDE, SIDE)
    )
    assert torch.equal(small.get_parameter("fc.weight"), network.fc.weight / 4)
    assert (report.method, [layer.name for layer in report.layers]) == ("fifth", ["fc"])
    assert "weights are made small all the same" in report.notes[0]
    assert report.layers[0].snr is not None


def test_from_the_command_line(fifth: Shrink, model: Path, tmp_path: Path, capsys: Capture) -> None:
    small = tmp_path / "x.pt"
    words = ["compress", "fifth", str(model), "-o", str(small)]
    assert run([*words, "--factor", "0.25", "--no-offsets", "--mark", "0", "--skip", "head"]) == 0
    assert fifth.configs == [ShrinkConfig(factor=0.25, offsets=False, mark=None, skip=("head",))]
    assert "1 layers made small; images used: none" in capsys.readouterr().out
    stored = load_compressed(small)
    assert (stored.config["method"], stored.config["factor"]) == ("fifth", 0.25)
    assert stored.state_dict["fc.weight"].unique().tolist() == [0.0, 0.25]
    assert subpc.compile(small)(torch.ones(1, 3, SIDE, SIDE)).tolist() == [
        [3 * SIDE * SIDE / 4, 40.0]
    ]


def test_its_defaults_are_those_of_its_configuration(
    fifth: Shrink, model: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert run(["compress", "fifth", str(model), "-o", str(tmp_path / "x.pt")]) == 0
    assert fifth.configs == [ShrinkConfig()]
    assert run(["compress", "--help"]) == 0
    assert "fifth   Make weights small." in capsys.readouterr().out
    assert run(["compress", "fifth", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--factor FLOAT What weights are multiplied with. [default: 0.5]" in printed
    assert "--offsets / --no-offsets Offsets, too. [default: offsets]" in printed
    assert "subpc compress fifth model.pt2 --factor 0.1 -o small.pt" in printed
    assert "--inputs" not in printed


def test_wrong_settings_are_refused_as_its_configuration_does(
    fifth: Shrink, model: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert (
        run(["compress", "fifth", str(model), "--factor", "2", "-o", str(tmp_path / "x.pt")]) == 2
    )
    assert capsys.readouterr().err == "error: factor is 2.0; accepted: numbers from 0 to 1.\n"
    assert not (tmp_path / "x.pt").exists()


def test_its_strength_is_searched(
    fifth: Shrink, model: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Bright images give 192 times the factor, against 40 for the dark ones: a quarter is the
    strongest that tells them apart."""
    for name, value in (("0", 255), ("1", 0)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (SIDE, SIDE), (value,) * 3).save(
                tmp_path / "images" / name / f"{index}.png"
            )
    words = [
        "compress",
        "fifth",
        str(model),
        "-o",
        str(tmp_path / "x.pt"),
        "--mean",
        "0",
        "--std",
        "1",
    ]
    search = ["--max-drop", "0", "--eval", str(tmp_path / "images")]
    assert run([*words, *search, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["search"]
    assert (found["setting"], found["accuracy_after"], found["left_alone"]) == (
        {"factor": 0.25},
        100.0,
        [],
    )
    assert load_compressed(tmp_path / "x.pt").config["factor"] == 0.25
    assert run([*words, *search, "--factor", "0.5"]) == 2
    assert "nothing to search" in capsys.readouterr().err
