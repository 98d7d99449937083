"""The compressed file comes back as it was written, compiles with no further word, and nothing else
is taken for it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from subpc.algorithms.file_format.compressed_file import (
    CompressedFile,
    save_atomic,
    save_compressed,
)
from subpc.algorithms.numerics.quantizers import quantize_ternary
from subpc.errors import ConfigError, ModelFileError
from subpc.frontend.architectures.small_nets import NETS, build
from subpc.frontend.files.load_file import read_weights
from subpc.frontend.import_model import import_model
from tests.algorithms.file_format.reader import load_compressed

OPTIONS = {"num_classes": 7, "in_channels": 3, "width": 32}


def written(path: Path) -> CompressedFile:
    state = build("resnet20", **OPTIONS).state_dict()
    file = CompressedFile(
        arch="subpc:resnet20",
        arch_options=OPTIONS,
        state_dict=state,
        config={"n": 16},
        input_shape=(1, 3, 28, 28),
    )
    save_compressed(path, file)
    return file


def test_round_trip(tmp_path: Path) -> None:
    file, back = written(tmp_path / "m.pt"), load_compressed(tmp_path / "m.pt")
    assert (back.arch, back.arch_options, back.config, back.input_shape) == (
        file.arch,
        OPTIONS,
        {"n": 16},
        (1, 3, 28, 28),
    )
    assert all(torch.equal(back.state_dict[key], value) for key, value in file.state_dict.items())
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]


def test_the_file_builds_its_own_network(tmp_path: Path) -> None:
    written(tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[(1, 3, 28, 28)])
    assert "fc.weight" in imported.param_names.values()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subpc_format": 9}, "format 9"),
        ({"arch": 3}, "architecture"),
        ({"state_dict": {"a": [1]}}, "names to tensors"),
        ({"input_shape": [1, -3]}, "input_shape"),
        ({"config": [1]}, "config"),
        ({"arch_options": {"width": torch.ones(1)}}, "arch_options"),
    ],
)
def test_bad_content_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    written(tmp_path / "m.pt")
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    torch.save({**content, **change}, tmp_path / "bad.pt")
    with pytest.raises(ModelFileError, match=words):
        read_weights(tmp_path / "bad.pt")


def packed(path: Path) -> dict[str, Any]:
    """The content of a file whose layer conv1 has ternary codes."""
    state = build("resnet20", **OPTIONS).state_dict()
    layers = {"conv1": quantize_ternary(state["conv1.weight"])}
    save_compressed(
        path,
        CompressedFile(
            arch="subpc:resnet20", arch_options=OPTIONS, state_dict=state, packed=layers
        ),
    )
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def test_the_first_format_is_read(tmp_path: Path) -> None:
    content = packed(tmp_path / "m.pt")
    entry = content["packed"]["conv1"]
    entry["ternary"] = entry.pop("has_zero")
    torch.save({**content, "subpc_format": 1}, tmp_path / "old.pt")
    old, new = (load_compressed(tmp_path / name) for name in ("old.pt", "m.pt"))
    assert old.packed["conv1"].has_zero
    assert torch.equal(old.state_dict["conv1.weight"], new.state_dict["conv1.weight"])


def test_a_code_that_stands_for_no_level_is_refused(tmp_path: Path) -> None:
    content = packed(tmp_path / "m.pt")
    content["packed"]["conv1"]["codes"][3] |= 0b1100
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ModelFileError, match="'conv1' has the code 3; 2 is the largest"):
        read_weights(tmp_path / "bad.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    written(tmp_path / "m.pt")
    before = (tmp_path / "m.pt").read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_atomic(tmp_path / "m.pt", lambda: None)
    assert (tmp_path / "m.pt").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", NETS)
def test_networks_have_channels_that_16_divides(name: str) -> None:
    net = build(name)
    assert net.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert all(m.out_channels % 16 == 0 for m in net.modules() if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize(
    "options", [{"depth": 3}, {"width": 0}, {"width": 1 << 40}, {"width": "16"}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        build("resnet20", **options)


@pytest.mark.parametrize(
    "make",
    [
        torch.Tensor.to_sparse,
        lambda t: torch.zeros(1).expand(1 << 20, 1 << 10),
        lambda t: t.to("meta"),
    ],
)
def test_tensors_of_other_kinds_are_refused(make: Any, tmp_path: Path) -> None:
    written(tmp_path / "m.pt")
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    content["state_dict"]["fc.weight"] = make(content["state_dict"]["fc.weight"])
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ModelFileError, match=r"no plain floats|larger than"):
        import_model(tmp_path / "bad.pt", shapes=[(1, 3, 28, 28)])
