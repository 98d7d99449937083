"""Images and labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subpc.errors import ConfigError
from subpc.frontend.architectures.torchvision_import import import_torchvision
from subpc.images.prepare import Preparation, best_classes, read_image, read_labels


def image(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    Image.fromarray(pixels, "RGBA").convert(mode).save(path)
    return path


@pytest.mark.parametrize("size", [(300, 400), (640, 333), (224, 224), (40, 31)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_same_pixels_as_torchvision(
    tmp_path: Path, size: tuple[int, int], interpolation: str
) -> None:
    import_torchvision()
    from torchvision.transforms import v2 as transforms

    path = image(tmp_path / "a.png", size)
    steps = [
        transforms.Resize(256, interpolation=transforms.InterpolationMode(interpolation)),
        transforms.CenterCrop(224),
        transforms.PILToTensor(),
    ]
    expected = transforms.Compose(steps)(Image.open(path)).numpy() / 255
    mean, std = (
        np.array([0.485, 0.456, 0.406])[:, None, None],
        np.array([0.229, 0.224, 0.225])[:, None, None],
    )
    result = read_image(path, Preparation(interpolation=interpolation))
    assert result.shape == (1, 3, 224, 224)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], (expected - mean) / std, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_colour_modes(tmp_path: Path, mode: str) -> None:
    path = image(tmp_path / ("a.tiff" if mode == "CMYK" else "a.png"), (50, 60), mode)
    assert read_image(path, Preparation(size=32)).shape == (1, 3, 32, 32)


def test_sixteen_bits_a_pixel_are_scaled_not_cut(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (60, 50), np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    how = Preparation(size=32)
    np.testing.assert_array_equal(
        read_image(tmp_path / "16.png", how), read_image(tmp_path / "8.png", how)
    )


def test_pixels_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((50, 60), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ConfigError, match="floating-point"):
        read_image(tmp_path / "a.tiff", Preparation(size=32))


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(ConfigError, match="is not an image"):
        read_image(tmp_path / "a.png", Preparation())
    with pytest.raises(ConfigError, match="No such file"):
        read_image(tmp_path / "b.png", Preparation())
    good = image(tmp_path / "c.png", (300, 300)).read_bytes()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(ConfigError, match="cannot read the image"):
        read_image(tmp_path / "cut.png", Preparation())


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 224, "resize": 200},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (1.0,)},
        {"interpolation": "magic"},
    ],
)
def test_wrong_preparation(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Preparation(**wrong)  # type: ignore[arg-type]


def test_imagenet_labels() -> None:
    labels = read_labels("imagenet")
    assert len(labels) == 1000
    assert "Egyptian cat" in labels[285]
    assert "espresso" in labels[967]


def test_labels_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert read_labels(str(tmp_path / "names.txt")) == ["cat", "dog"]
    with pytest.raises(ConfigError, match="give `imagenet` or a text file"):
        read_labels(str(tmp_path / "none.txt"))
    (tmp_path / "weights.bin").write_bytes(b"\x80\xff")
    with pytest.raises(
        ConfigError, match=r"weights\.bin: it is not text in UTF-8; give `imagenet` or a text file"
    ):
        read_labels(str(tmp_path / "weights.bin"))


def test_best_classes() -> None:
    rows = best_classes(np.array([1.0, 3.0, 2.0], np.float32), ["a", "b", "c"], 2)
    assert [(i, name) for i, name, _ in rows] == [(1, "b"), (2, "c")]
    assert rows[0][2] == pytest.approx(np.exp(3) / np.exp([1, 2, 3]).sum())
    assert best_classes(np.array([0.1, 0.7, 0.2]), None, 1) == [(1, "class 1", pytest.approx(0.7))]
    with pytest.raises(ConfigError, match="3 classes, the label list 2 names"):
        best_classes(np.zeros(3), ["a", "b"], 1)


def test_a_strip_is_refused_before_it_is_scaled_to_gigabytes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1x60000 pixels is too narrow for a square"):
        read_image(image(tmp_path / "a.png", (1, 60_000)), Preparation())


def test_warnings_of_pillow_stay_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = image(tmp_path / "a.png", (100, 80))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    Image.open(path).close()
    assert [warning.category for warning in recwarn] == [Image.DecompressionBombWarning]
    recwarn.clear()
    assert read_image(path, Preparation(size=32)).shape == (1, 3, 32, 32)
    assert not recwarn.list
