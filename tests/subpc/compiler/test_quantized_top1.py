"""A trained network that PyTorch quantized puts images into the classes that PyTorch puts them
into."""

from pathlib import Path

import numpy as np
import torch

import subpc
from subpc.demo.show import CLOTHES
from subpc.frontend.load_network import load_network
from subpc.images.fashion_mnist import normalised, read_part
from tests.frontend.quantized_files import by_pt2e

IMAGES = 1000


def test_top_1_is_that_of_pytorch(tmp_path: Path) -> None:
    net = load_network(CLOTHES / "dense.safetensors").model.eval()
    pixels, _ = read_part(CLOTHES, "t10k")
    images = normalised(pixels)
    assert len(images) >= IMAGES
    images, shape = images[:IMAGES], (50, *images.shape[1:])
    converted = by_pt2e(net, "x86", shape, samples=images[-200:].split(50))
    path = tmp_path / "quantized.pt2"
    torch.export.save(torch.export.export(converted, (images[:50],)), path)
    compiled = subpc.compile(path, precision="int8")
    assert all(layer.precision == "int8" for layer in compiled.report.layers)
    with torch.no_grad():
        expected = torch.cat([converted(part) for part in images.split(50)]).argmax(1).numpy()
    found = np.concatenate([compiled(part).numpy().argmax(1) for part in images.split(50)])
    # It depends on the image, and what another image gets is no answer.
    assert np.bincount(expected, minlength=10).min() > 50
    assert (found == expected).mean() >= 0.995
