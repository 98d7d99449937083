"""Make what `subpc demo` shows of trained sparsity: two networks, dense and SUBP, and a slice of
the test images.

    # trains what is missing, about ten minutes a network on one core
    python benchmarks/demo_nets.py --cache FOLDER

The settings are those of benchmarks/subp_fashion_mnist.py, seed 0; weights are stored as float16.
"""

import argparse
import gzip
import shutil
import struct
from pathlib import Path

import torch
from subp_fashion_mnist import ARCH, DENSE, OPTIONS, config

from subpc.demo.show import CLOTHES
from subpc.images.fashion_mnist import INSTALLED, read_part
from subpc.training.job import Job
from subpc.training.train_files import train_files

COUNT = 1000
NETS = {"dense": config(DENSE, 0.0, 0), "sparse": config("SUBP, BPAR", 0.75, 0)}


def write_slice(source: Path) -> None:
    """The first COUNT test images and labels as the idx files that they come from."""
    images, labels = read_part(source, "t10k")
    pixels, classes = (
        images[:COUNT].numpy().tobytes(),
        labels[:COUNT].to(torch.uint8).numpy().tobytes(),
    )
    for name, head, body in (
        ("t10k-images-idx3-ubyte", struct.pack(">4I", 2051, COUNT, *images.shape[2:]), pixels),
        ("t10k-labels-idx1-ubyte", struct.pack(">2I", 2049, COUNT), classes),
    ):
        (CLOTHES / f"{name}.gz").write_bytes(gzip.compress(head + body, 9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache", type=Path, required=True, help="where networks, logs and checkpoints are kept"
    )
    parser.add_argument("--data", type=Path, default=INSTALLED, help="the folder of Fashion-MNIST")
    options = parser.parse_args()
    torch.set_num_threads(1)
    CLOTHES.mkdir(parents=True, exist_ok=True)
    write_slice(options.data)
    for name, settings in NETS.items():
        output = options.cache / f"{name}.safetensors"
        if not output.exists():
            data = f"fashion-mnist:{options.data}"
            job = Job(
                arch=ARCH,
                arch_options=OPTIONS,
                data=data,
                output=output,
                resume=True,
                device="cpu",
                half=True,
            )
            print(f"{name}: {train_files(job, settings)['top1']:.2f} %", flush=True)
        shutil.copy(output, CLOTHES)


if __name__ == "__main__":
    main()
