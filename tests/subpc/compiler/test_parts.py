"""Parts of a network: compiled alone or together, put back, and named where the whole cannot be
compiled."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import subpc
from subpc.cli.main import run
from subpc.demo.random_networks import set_statistics
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.architectures.torchvision_import import import_torchvision
from subpc.runtime.deviation import share_of_range

SHAPE = (1, 3, 16, 16)


class Backbone(nn.Module):
    """Two sizes of features, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
        )

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        low = self.low(image).relu()
        return OrderedDict([("low", low), ("high", self.high(low).relu())])


class Head(nn.Module):
    """Scores of all places, and what another part has of each."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(16, 2, 1)

    def forward(self, features: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"scores": torch.cat([self.scores(x).flatten(2) for x in features], dim=2)}


class Detector(nn.Module):
    """Takes a list of images; how many places it returns depends on what is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head, self.spare = (
            Backbone(),
            Head(),
            nn.ModuleList([nn.Conv2d(3, 3, 1)]),
        )

    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        if images[0].ndim != 3:
            raise ValueError("a list of images is wanted")
        features = self.backbone(torch.stack(list(images)))
        scores = self.head(list(features.values()))["scores"]
        found = scores[scores > 0]
        return found * 2 if found.numel() > 4 else found


def detector() -> Detector:
    torch.manual_seed(0)
    return Detector().eval()


ARCH = f"{__name__}:detector"


def images() -> torch.Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_a_part_is_compiled_alone_under_the_names_of_the_whole() -> None:
    model = detector()
    compiled = subpc.compile(model, images()[0], part="backbone")
    assert compiled.input_names == ("image",)
    assert compiled.output_names == ("low", "high")
    assert [layer.name for layer in compiled.report.layers] == ["backbone.low", "backbone.high"]
    for image in images():
        for got, expected in zip(compiled(image), model.backbone(image).values(), strict=True):
            assert share_of_range(got, expected.detach()) < 1e-6


def test_parts_in_a_row_become_one_library_with_the_results_of_all() -> None:
    model = detector()
    compiled = subpc.compile(model, images()[0], part="backbone,head")
    assert compiled.output_names == ("backbone.low", "backbone.high", "head.scores")
    for image in images():
        features = model.backbone(image)
        expected = [*features.values(), model.head(list(features.values()))["scores"]]
        for got, value in zip(compiled(image), expected, strict=True):
            assert share_of_range(got, value.detach()) < 1e-6


@pytest.mark.parametrize("way", ["as_module", "torch.compile"])
def test_a_compiled_part_stands_in_the_model_again(way: str) -> None:
    model, (image, other) = detector(), images()
    with torch.no_grad():
        expected = [model(list(x)) for x in (image, other)]
    if way == "as_module":
        model.backbone = subpc.as_module(subpc.compile(model, image, part="backbone"))  # type: ignore[assignment]
        assert isinstance(model.backbone(image), OrderedDict)
    else:
        model.backbone = torch.compile(model.backbone, backend="subpc")  # type: ignore[assignment]
    with torch.inference_mode():
        for x, value in zip((image, other), expected, strict=True):
            torch.testing.assert_close(model(list(x)), value, rtol=1e-5, atol=1e-6)


def test_as_module_returns_what_the_network_did() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.relu(), x + 1

    x = images()[0]
    one, two = (
        subpc.as_module(subpc.compile(nn.ReLU(), x)),
        subpc.as_module(subpc.compile(Two(), x)),
    )
    torch.testing.assert_close(one(x), x.relu())
    torch.testing.assert_close(two(x), (x.relu(), x + 1))


@pytest.mark.parametrize("form", ["image", "list of images"])
def test_a_whole_detector_is_refused_with_the_part_that_compiles(
    form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    image = images()[0]
    with pytest.raises(subpc.SubpcError) as caught:
        subpc.compile(detector(), image if form == "image" else [list(image)])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert 'part="backbone,head" (--part backbone,head); here its input is 1,3,16,16' in lines[1]
    assert capfd.readouterr().err == ""  # torch.export prints its graph


def test_a_model_that_fails_with_a_wrong_shape_is_not_told_to_be_cut() -> None:
    with pytest.raises(subpc.ConfigError, match="Pass the shape it expects"):
        subpc.compile(build_arch("subpc:resnet20"), torch.rand(1, 5, 16, 16))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("backbon", "did you mean backbone"),
        ("", "it has backbone, head, spare"),
        ("spare", "ModuleList.*spare.0"),
        ("backbone,backbone.low", "twice"),
        ("head,head", "twice"),
    ],
)
def test_parts_that_are_none_are_refused(part: str, words: str) -> None:
    with pytest.raises(subpc.ConfigError, match=words) as caught:
        subpc.compile(detector(), images()[0], part=part)
    assert len(str(caught.value).splitlines()) <= 2


def test_programs_and_onnx_files_have_no_parts(tmp_path: Path) -> None:
    program = torch.export.export(nn.ReLU(), (images()[0],))
    torch.export.save(program, tmp_path / "m.pt2")
    (tmp_path / "m.onnx").write_bytes(b"any")
    for model in (program, tmp_path / "m.pt2", tmp_path / "m.onnx"):
        with pytest.raises(subpc.ConfigError, match=r"has no parts"):
            subpc.compile(model, part="backbone")


def test_the_command_line_compiles_compares_and_times_a_part(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights, library = tmp_path / "w.pth", tmp_path / "m.so"
    torch.save(detector().state_dict(), weights)
    options = ["--arch", ARCH, "--part", "backbone,head"]
    assert run(["compile", str(weights), *options, "--shape", "1,3,16,16", "-o", str(library)]) == 0
    assert run(["compare", str(weights), str(library), *options, "--runs", "0"]) == 0
    assert "head.scores" in capfd.readouterr().out
    command = [
        "bench",
        str(library),
        "--model",
        str(weights),
        *options,
        "--compare",
        "onnxruntime",
        "--runs",
        "2",
        "--rounds",
        "1",
    ]
    assert run(command) == 0
    assert "DIFFERS" not in (shown := capfd.readouterr().out)
    assert "onnxruntime" in shown
    assert (
        run(
            [
                "compile",
                str(weights),
                "--arch",
                ARCH,
                "--part",
                "backbone",
                "-o",
                str(tmp_path / "n.so"),
            ]
        )
        == 2
    )
    assert "--shape" in capfd.readouterr().err
    assert not (tmp_path / "n.so").exists()


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """torchvision's own is compiled code that not every installation has."""
    overlap = import_torchvision().ops.boxes.box_iou(boxes, boxes)
    alive, kept = torch.ones(len(boxes), dtype=torch.bool), []
    for index in scores.argsort(descending=True).tolist():
        if alive[index]:
            kept.append(index)
            alive &= overlap[index] <= iou_threshold
    return torch.tensor(kept, dtype=torch.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ssdlite320_mobilenet_v3_large", "backbone,head"),
        ("ssd300_vgg16", "backbone,head"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "backbone,rpn.head"),
        ("maskrcnn_resnet50_fpn", "backbone,rpn.head"),
        ("retinanet_resnet50_fpn_v2", "backbone,head"),
        ("fcos_resnet50_fpn", "backbone,head"),
    ],
)
def test_detectors_of_torchvision(name: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of each; the backbone alone is put back where compiling it takes little."""
    monkeypatch.setattr(import_torchvision().ops.boxes, "nms", _nms)
    torch.manual_seed(0)
    model: Any = build_arch(f"torchvision:{name}").eval()
    size = 300 if "ssd300" in name else 96
    model.transform.fixed_size = (size, size)
    set_statistics(model.backbone, (1, 3, size, size))
    inputs = torch.rand(2, 1, 3, size, size)
    with pytest.raises(subpc.SubpcError, match=f'part="{part}"'):
        subpc.compile(model, inputs[0])
    compiled = subpc.compile(model, inputs[0], part=part)
    backbone, (_, head) = model.backbone, part.split(",")
    with torch.no_grad():
        for x in inputs:
            features = backbone(x)
            expected = torch.utils._pytree.tree_leaves(
                [features, model.get_submodule(head)(list(features.values()))]
            )
            for got, value in zip(compiled(x), expected, strict=True):
                assert share_of_range(got, value) < 1e-4
        if "resnet50" in name or "vgg16" in name:
            return
        image = [torch.rand(3, 80, 120)]
        before = model(image)[0]
        model.backbone = subpc.as_module(subpc.compile(model, inputs[0], part="backbone"))
        after = model(image)[0]
    assert after["scores"].shape == before["scores"].shape
    torch.testing.assert_close(after["scores"], before["scores"], rtol=1e-3, atol=1e-4)
