"""The demonstration's first part, on the real pretrained network and a real image."""

from pathlib import Path

import pytest

import subpc
from subpc.demo import show
from subpc.errors import ConfigError


def test_the_pretrained_network_sees_the_cat(tmp_path: Path) -> None:
    stages: list[str] = []
    seen = show.recognise(None, tmp_path, None, lambda stage, done, total: stages.append(stage))
    assert seen.image.name == "chelsea.png"
    assert "cat" in seen.classes[0][1]
    assert [index for index, _, _ in seen.classes[:2]] in (
        [285, 282],
        [282, 285],
        [285, 281],
        [281, 285],
        [282, 281],
    )
    assert len(seen.classes) == 5
    assert stages


def test_a_missing_package_is_named() -> None:
    with pytest.raises(
        ConfigError,
        match=(
            r"the demo needs no-such-package; install it with: pip install no-such-package"
            r" --no-deps"
        ),
    ):
        show.packaged("no_such_package", "file", "no-such-package --no-deps")


@pytest.mark.parametrize(
    ("name", "precision", "least", "most_megabytes"),
    [
        ("dense", "float32", 91.0, 4.5),
        ("sparse", "float32", 90.5, 1.3),
        ("sparse", "int8", 90.5, 0.4),
    ],
)
def test_the_bundled_networks_recognise_clothes(
    tmp_path: Path, name: str, precision: str, least: float, most_megabytes: float
) -> None:
    result = show.classify(name, tmp_path, None, lambda stage, done, total: None, precision)
    assert result.top1 >= least
    assert result.megabytes <= most_megabytes
    assert result.milliseconds > 0
    assert ("N=16" in result.headline) == (name == "sparse")
    assert precision in result.headline
    # Uniform blocks everywhere in the sparse one, none in the dense one.
    report = subpc.load(tmp_path / f"{name}_{precision}.so").report
    layers = [layer for layer in report.layers if layer.n]
    assert len(layers) == (18 if name == "sparse" else 0)
    assert {layer.pattern for layer in layers} <= {"1x16 uniform"}
    # Some weights are too small for float16 or for a code, besides the blocks that were pruned.
    assert [layer.sparsity for layer in layers] == pytest.approx([0.75] * len(layers), abs=5e-3)
