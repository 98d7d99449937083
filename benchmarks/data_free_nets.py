"""Train the small networks of docs/data_free.md on Fashion-MNIST: plain PyTorch, one thread, resumable network by network.

    python benchmarks/data_free_nets.py --cache ~/.cache/subpc/fashion_mnist

Pictures of 28x28 become planes of 14x14 after a stride-2 stem, so that a network trains in minutes on one core.
"""

import argparse
import gzip
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

DATA = Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.2860, 0.3530
# (network, epochs); deeper ones come last in each seed because they take longest
PLAN = (("resnet20", 3), ("resnet56", 3), ("vgg", 3))
BATCH, PEAK_RATE, DECAY = 128, 0.2, 5e-4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR-style ResNet with three stages of `blocks` basic blocks, (n, 1, 28, 28) to (n, classes)."""

    def __init__(self, blocks: int, *, num_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for index in range(3):
            outputs = width << index
            strides = [1 if index == 0 else 2] + [1] * (blocks - 1)
            stages.append(nn.Sequential(*(BasicBlock(inputs if i == 0 else outputs, outputs, s) for i, s in enumerate(strides))))
            inputs = outputs
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return scores


def resnet20(num_classes: int = 10) -> nn.Module:
    """ResNet-20 for 28x28 pictures of one channel."""
    return ResNet(3, num_classes=num_classes)


def resnet56(num_classes: int = 10) -> nn.Module:
    """ResNet-56 for 28x28 pictures of one channel."""
    return ResNet(9, num_classes=num_classes)


def vgg(num_classes: int = 10) -> nn.Module:
    """VGG-16's thirteen convolutions with batch norm, a quarter of the width, two poolings less, one linear layer."""
    layers: list[nn.Module] = []
    inputs = 1
    for outputs in (16, 16, 0, 32, 32, 0, 64, 64, 64, 0, 128, 128, 128, 128, 128, 128):
        if outputs == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        stride = 2 if inputs == 1 else 1
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))


BUILD = {"resnet20": resnet20, "resnet56": resnet56, "vgg": vgg}


def pictures(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised pictures (n, 1, 28, 28) and classes (n,) of `train` or `t10k`."""
    with gzip.open(DATA / f"{split}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(DATA / f"{split}-labels-idx1-ubyte.gz") as file:
        classes = np.frombuffer(file.read(), np.uint8, offset=8)
    return (torch.from_numpy(pixels.astype(np.float32)) / 255 - MEAN) / STD, torch.from_numpy(classes.astype(np.int64))


@torch.no_grad()
def accuracy(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Share of pictures put into their class, in per cent."""
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(data[0].split(500), data[1].split(500), strict=True))
    return 100 * right / len(data[1])


def train(name: str, seed: int, epochs: int) -> nn.Module:
    """A trained network: SGD, one-cycle, horizontal flips."""
    torch.manual_seed(seed)
    model = BUILD[name]().to(memory_format=torch.channels_last)
    x, y = pictures("train")
    steps = epochs * (len(y) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=PEAK_RATE, momentum=0.9, weight_decay=DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(y))[: len(y) // BATCH * BATCH].split(BATCH):
            images = x[batch]
            flip = torch.rand(BATCH) < 0.5
            images[flip] = images[flip].flip(3)
            optimizer.zero_grad()
            F.cross_entropy(model(images), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.to(memory_format=torch.contiguous_format).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nets", nargs="*", default=[name for name, _ in PLAN])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    test = pictures("t10k")
    for seed in range(options.seeds):
        for name, epochs in PLAN:
            path = options.cache / f"{name}-{seed}.pt"
            if name not in options.nets or path.exists():
                continue
            start = time.perf_counter()
            model = train(name, seed, epochs)
            torch.save(model.state_dict(), path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
            print(f"{name} seed {seed}: {accuracy(model, test):.2f} % in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
