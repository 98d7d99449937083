"""Images made from a network alone: what its batch norms get from them comes to what they saw in
training."""

import pytest
import torch
from torch import nn

from subpc.algorithms.images.matched_images import match, moved
from subpc.algorithms.images.random_images import random_shapes
from subpc.errors import UnsupportedModelError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
    )
    for _ in range(50):
        # Statistics that images can have: those of noise, brighter and stronger than those drawn.
        net(2 * torch.randn(4, 3, 16, 16) + 1)
    return net.eval()


def distance(net: nn.Sequential, images: torch.Tensor) -> float:
    """Of means and deviations from the running ones, in running deviations, mean over channels and
    layers."""
    found, x = [], images
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.BatchNorm2d):
                variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
                found += [
                    (mean - layer.running_mean).square() / layer.running_var,
                    ((variance / layer.running_var).sqrt() - 1).square(),
                ]
            x = layer(x)
    return float(torch.cat(found).mean())


def test_the_statistics_come_close_and_nothing_else_changes() -> None:
    net, images = network(), random_shapes(16, 3, 16, 0)
    state, drawn = {key: value.clone() for key, value in net.state_dict().items()}, images.clone()
    matched = match(net, images, 60)
    assert matched.shape == images.shape and not matched.requires_grad
    assert distance(net, matched) < distance(net, images) / 4
    assert torch.equal(images, drawn)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_a_few_steps_bring_random_images_closer() -> None:
    net, images = network(), random_shapes(100, 3, 16, 0)
    found = moved(net, images)
    assert found is not None and found.shape == (64, 3, 16, 16)
    assert distance(net, found) < distance(net, images) / 4


def test_a_last_batch_of_one_image_joins_the_one_before_it() -> None:
    assert match(network(), random_shapes(129, 3, 8, 0), 1).shape == (129, 3, 8, 8)


def test_progress_counts_every_step() -> None:
    seen: list[tuple[int, int]] = []
    match(
        network(),
        random_shapes(4, 3, 8, 0),
        3,
        lambda stage, done, total: seen.append((done, total)),
    )
    assert seen == [(0, 3), (1, 3), (2, 3)]


def test_a_network_without_batch_norm_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no batch norm"):
        match(nn.Sequential(nn.Conv2d(3, 4, 3)), random_shapes(2, 3, 8, 0), 1)
