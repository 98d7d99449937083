"""What a compiled library tells of its layers: results in between, kept blocks, how the file was
compressed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import subpc
from subpc.algorithms.file_format.compressed_file import CompressedFile, save_compressed
from subpc.library.block_map import unpack_blocks
from subpc.library.layer_results import read_result
from subpc.library.report import ResultInfo
from tests.subpc.small_net import ARCH, SHAPE, small_net


@pytest.fixture(scope="module")
def library() -> subpc.CompiledModel:
    return subpc.compile(small_net(pruned="block.conv2"), torch.rand(SHAPE), sparse="always")


def test_results_of_layers_are_pytorchs(library: subpc.CompiledModel) -> None:
    net, x = (
        small_net(pruned="block.conv2"),
        torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)),
    )
    with torch.no_grad():
        stem = torch.nn.functional.hardswish(net.stem(x))
        first = torch.relu(net.block.bn1(net.block.conv1(stem)))
        second = torch.relu(net.block.bn2(net.block.conv2(first)) + stem)
        expected = {"stem": stem, "block.conv1": first, "block.conv2": second, "fc": net(x)}
    outputs, results = library.trace([x])
    np.testing.assert_array_equal(outputs[0], library(x.numpy()))
    for name, value in expected.items():
        np.testing.assert_allclose(results[name][0], value.numpy(), rtol=1e-4, atol=1e-5)
    assert [(results[n][1].residual, results[n][1].activation) for n in expected][1:] == [
        (False, "relu"),
        (True, "relu"),
        (False, "none"),
    ]


def test_the_kept_blocks_are_those_of_the_weights(library: subpc.CompiledModel) -> None:
    layers = {layer.name: layer for layer in library.report.layers}
    found = layers["block.conv2"]
    kept = unpack_blocks(found.blocks, found.shape[0] // found.n, found.shape[1])
    np.testing.assert_array_equal(kept, np.tile(np.arange(32) % 2 == 1, (32 // found.n, 1)))
    assert layers["block.conv1"].blocks == ""


def test_a_result_outside_of_its_memory_is_not_read() -> None:
    place = {
        "space": "workspace",
        "index": 0,
        "image": 16,
        "plane": 16,
        "first": 0,
        "pitch": 4,
        "residual": False,
        "activation": "none",
    }
    inside = ResultInfo(offset=0, shape=(1, 1, 4, 4), **place)
    assert read_result(inside, np.arange(16, dtype=np.float32)).shape == (1, 1, 4, 4)
    for offset, shape in (
        (1, (1, 1, 4, 4)),
        (-1, (1, 1, 4, 4)),
        (0, (2, 1, 4, 4)),
        (0, (1, 1, 5, 4)),
    ):
        with pytest.raises(ValueError, match="does not lie in 16 floats"):
            read_result(ResultInfo(offset=offset, shape=shape, **place), np.zeros(16, np.float32))


def test_codes_are_read_as_what_they_stand_for() -> None:
    place = {"space": "workspace", "index": 0, "image": 32, "plane": 16, "first": 1, "pitch": 4}
    info = ResultInfo(
        offset=8,
        shape=(1, 2, 2, 3),
        residual=False,
        activation="relu",
        dtype="uint8",
        scale=0.5,
        zero_point=3,
        **place,
    )
    memory = np.zeros(16, np.float32)
    memory.view(np.uint8)[:] = np.arange(64)
    # Element (c, y, x) is byte 9 + 16 c + 4 y + x.
    values = [[[6, 7, 8], [10, 11, 12]], [[22, 23, 24], [26, 27, 28]]]
    np.testing.assert_array_equal(read_result(info, memory), [np.multiply(values, 0.5)])
    with pytest.raises(ValueError, match="does not lie in 64 bytes"):
        read_result(replace(info, offset=50), memory)
    with pytest.raises(ValueError, match="of type 'int64'"):
        read_result(replace(info, dtype="int64"), memory)


def test_what_a_compressed_file_says_of_itself_travels_along(tmp_path: Path) -> None:
    report = {"top1": 91.25, "pattern": "1x16", "layers": [1, 2], "note": "x" * 1000}
    file = CompressedFile(
        arch=ARCH,
        state_dict=small_net().state_dict(),
        config={"method": "subp"},
        report=report,
        input_shape=SHAPE,
    )
    save_compressed(tmp_path / "small.pt", file)
    facts = subpc.compile(tmp_path / "small.pt", arch=ARCH).report.metadata.compression
    assert facts == {"method": "subp", "top1": "91.25", "pattern": "1x16", "note": "x" * 200}
