"""Metadata records and the readable report."""

import json
from typing import Any

import pytest

from subpc.errors import ConfigError
from subpc.library.artifact import read_metadata
from subpc.library.report import CompileReport, LayerReport, Metadata, TensorInfo


def test_json_round_trip(toy: Any) -> None:
    metadata = read_metadata(toy)
    assert Metadata.from_dict(json.loads(json.dumps(metadata.to_dict()))) == metadata


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "shape": [1], "dtype": "float32", "extra": 1}, "unknown keys \\['extra'\\]"),
        ({"name": "x", "shape": [1]}, "missing keys \\['dtype'\\]"),
        ({"name": 3, "shape": [1], "dtype": "float32"}, "TensorInfo.name: expected str, got 3"),
        ({"name": "x", "shape": ["1"], "dtype": "float32"}, "TensorInfo.shape: expected int"),
        ({"name": "x", "shape": [True], "dtype": "float32"}, "TensorInfo.shape: expected int"),
        ({"name": "x", "shape": 1, "dtype": "float32"}, "TensorInfo.shape"),
        ([], "expected an object"),
    ],
)
def test_wrong_records_are_refused(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TensorInfo.from_dict(data)


def test_nested_wrong_keys_are_refused(toy: Any) -> None:
    data = read_metadata(toy).to_dict()
    data["layers"][0]["color"] = "red"
    with pytest.raises(ConfigError, match="LayerReport: unknown keys"):
        Metadata.from_dict(data)


def test_headline_and_summary(toy: Any) -> None:
    report = CompileReport(metadata=read_metadata(toy))
    assert report.headline == "toy: 25% sparse, N=16, float32, untuned, llvm"
    assert report.summary == "1/3 convs sparse, 2 dense: 1 below threshold, 1 grouped"
    assert [layer.name for layer in report.convs] == ["layer1.conv1", "stem", "layer2.conv1"]


def test_a_model_without_convolutions() -> None:
    metadata = Metadata(
        model="m",
        target="llvm",
        features=(),
        precision="float32",
        tuned=True,
        functions=(),
        layers=(),
    )
    report = CompileReport(metadata=metadata)
    assert report.headline == "m: 0% sparse, N=-, float32, tuned, llvm"
    assert report.summary == "no convolutions, 0 fully connected layers"


def test_records_do_not_change(toy: Any) -> None:
    layer = read_metadata(toy).layers[0]
    assert isinstance(layer, LayerReport)
    with pytest.raises(AttributeError):
        layer.n = 8  # type: ignore[misc]
