"""Train the networks of docs/data_free.md on Fashion-MNIST: subpc's own small networks and trainer,
resumable epoch by epoch.

    python benchmarks/data_free_nets.py --cache FOLDER     # start it twice to use two cores

One thread a run; three seeds of three networks, the first seed of all before the second.
"""

import argparse
import itertools
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from subpc.algorithms.subp.images import InMemory
from subpc.algorithms.subp.train_config import TrainConfig
from subpc.frontend.load_network import load_network
from subpc.images.fashion_mnist import INSTALLED, MEAN, STD, read_part
from subpc.training.job import Job
from subpc.training.train_files import train_files

NETS = {"resnet20": 8, "vgg_small": 8, "resnet56": 7}  # epochs
SEEDS = (0, 1, 2)
OPTIONS = {"width": 16, "stem_stride": 2}


def settings(net: str, seed: int) -> TrainConfig:
    """How a network is trained."""
    return TrainConfig(
        method="dense",
        epochs=NETS[net],
        rate=0.1,
        weight_decay=5e-4,
        label_smoothing=0.0,
        amp=True,
        seed=seed,
    )


def train(cache: Path, net: str, seed: int) -> None:
    """Train a network that is not there and is not being trained by another process."""
    output = cache / f"{net}-{seed}.safetensors"
    try:
        with FileLock(cache / f"{net}-{seed}.lock", timeout=0):
            if output.exists():
                return
            job = Job(
                arch=f"subpc:{net}",
                arch_options=OPTIONS,
                data="fashion-mnist",
                output=output,
                resume=True,
                device="cpu",
            )
            show = lambda epochs: print(output.stem, epochs[-1], flush=True)  # noqa: E731
            report = train_files(job, settings(net, seed), on_epoch=show)
            print(f"{output.stem}: {report['top1']:.2f} %", flush=True)
    except Timeout:
        return


def load(cache: Path, net: str, seed: int) -> nn.Module:
    """A trained network in eval mode."""
    return load_network(cache / f"{net}-{seed}.safetensors").model.eval()


def images(part: str) -> InMemory:
    """The images of `train` or `t10k`."""
    return InMemory(*read_part(INSTALLED, part), mean=MEAN, std=STD)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    for seed, net in itertools.product(options.seeds, options.nets):
        train(options.cache, net, seed)


if __name__ == "__main__":
    main()
