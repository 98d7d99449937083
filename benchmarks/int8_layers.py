"""The int8 kernels one by one: every distinct convolution of ResNet-50, VGG-16 and MobileNetV2,
dense and 1x16-sparse.

    python benchmarks/int8_layers.py                                  # about 15 minutes
    python benchmarks/int8_layers.py --network resnet50 --sparsity 0.75 --threads 1
    python benchmarks/int8_layers.py --network resnet50 --precision float32

Each convolution is compiled alone, with a ReLU, and a mean behind it that reads its result; a
profile times its steps, packing and sorting by phase included. GOP/s count useful work, a
multiply-add as two. The peak is what the target's instructions reach here when they wait for
nothing; Winograd's formula (float32) can exceed it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
from torch import nn

import subpc
from subpc.demo.random_networks import prune_conv, seeded_model
from subpc.profiling.probes import Probes, highest

NETWORKS = ("resnet50", "vgg16_bn", "mobilenet_v2")
SIDE, N = 224, 16


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution, by all that decides how long it takes. side: of its input's planes."""

    c_in: int
    c_out: int
    kernel: int
    stride: int
    groups: int
    side: int

    @property
    def operations(self) -> int:
        """Of the dense layer, a multiply-add being two."""
        size = self.side // self.stride
        return 2 * size * size * self.c_out * self.c_in // self.groups * self.kernel**2

    def __str__(self) -> str:
        kind = f"{self.kernel}x{self.kernel}{f' stride {self.stride}' if self.stride > 1 else ''}"
        name = f"depthwise {self.c_in}" if self.groups > 1 else f"{self.c_in}->{self.c_out}"
        return f"{kind} {name}, {self.side}x{self.side}"

    def conv(self, sparsity: float) -> nn.Conv2d:
        """The layer with random weights, pruned in blocks where blocks of N divide it."""
        conv = nn.Conv2d(
            self.c_in,
            self.c_out,
            self.kernel,
            self.stride,
            padding=self.kernel // 2,
            groups=self.groups,
        )
        if sparsity and self.prunes:
            prune_conv(conv, N, sparsity)
        return conv

    @property
    def prunes(self) -> bool:
        """Whether a network's pruning takes it: not the stem, and nothing in groups."""
        return self.groups == 1 and self.c_out % N == 0 and self.c_in > 3


class Alone(nn.Module):
    """A convolution with a ReLU, and a mean that reads its result: (1, c_in, side, side) to (1,
    c_out)."""

    def __init__(self, layer: Layer, sparsity: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = layer.conv(sparsity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of each channel."""
        return torch.relu(self.conv(x)).mean((2, 3))


def layers_of(name: str) -> Counter[Layer]:
    """How often a network has each convolution."""
    model, found = seeded_model(name), Counter[Layer]()

    def note(conv: nn.Conv2d, inputs: tuple[torch.Tensor], _output: torch.Tensor) -> None:
        sizes = {"c_in": conv.in_channels, "c_out": conv.out_channels, "groups": conv.groups}
        shape = {
            "kernel": conv.kernel_size[0],
            "stride": conv.stride[0],
            "side": inputs[0].shape[3],
        }
        found[Layer(**sizes, **shape)] += 1

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(torch.zeros(1, 3, SIDE, SIDE))
    return found


def microseconds(
    layer: Layer, sparsity: float, precision: str, target: str, threads: Sequence[int]
) -> list[float]:
    """With each number of threads."""
    model, shape = Alone(layer, sparsity).eval(), (1, layer.c_in, layer.side, layer.side)
    found = []
    with TemporaryDirectory() as folder:
        library = Path(folder) / "layer.so"
        subpc.compile(model, shapes=[shape], precision=precision, target=target, output=library)
        for count in threads:
            profile = subpc.load(library, threads=count).profile(runs=30, probes=False)
            found.append(sum(1000 * entry.ms for entry in profile.layers if entry.layer == "conv"))
    return found


def peaks(target: str, precision: str, threads: Sequence[int]) -> list[float]:
    """GOP/s that these numbers of threads reach at most."""
    probes = [Probes(target, count) for count in threads]
    return [highest([p.peak() for _ in range(3)]).of(precision) for p in probes]


@click.command()
@click.option("--network", "names", multiple=True, type=click.Choice(NETWORKS), default=NETWORKS)
@click.option("--sparsity", "sparsities", multiple=True, type=float, default=(0.0, 0.75))
@click.option("--threads", multiple=True, type=int, default=(1, 2))
@click.option("--precision", default="int8", show_default=True)
@click.option("--target", default="llvm -mcpu=native", show_default=True)
def main(
    names: tuple[str, ...],
    sparsities: tuple[float, ...],
    threads: tuple[int, ...],
    precision: str,
    target: str,
) -> None:
    """Microseconds, GOP/s and share of the peak, layer by layer."""
    roofs = peaks(target, precision, threads)
    roof_text = ", ".join(f"{r:.0f} with {t}" for r, t in zip(roofs, threads, strict=True))
    click.echo(f"peak GOP/s, by threads: {roof_text}")
    for name in names:
        found = layers_of(name)
        for sparsity in sparsities:
            click.echo(f"\n{name} {precision} {sparsity:.0%}")
            measure = partial(
                microseconds,
                sparsity=sparsity,
                precision=precision,
                target=target,
                threads=threads,
            )
            show(found, sparsity, measure, roofs)


def show(
    found: Counter[Layer],
    sparsity: float,
    measure: Callable[[Layer], list[float]],
    roofs: Sequence[float],
) -> None:
    """A row a layer, and the sum over the network."""
    everything, sums = 0.0, [0.0] * len(roofs)
    for layer, count in found.items():
        work, times = layer.operations * (1 - sparsity * layer.prunes), measure(layer)
        rates = [(us, work / us / 1e3) for us in times]
        click.echo(f"  {layer!s:34} x{count:2}  {columns(rates, roofs)}")
        everything += count * work
        sums = [total + count * us for total, us in zip(sums, times, strict=True)]
    rates = [(us, everything / us / 1e3) for us in sums]
    click.echo(f"  {'all':34}      {columns(rates, roofs)}")


def columns(rates: Sequence[tuple[float, float]], roofs: Sequence[float]) -> str:
    """Microseconds, GOP/s and share of the peak for each number of threads."""
    return "   ".join(
        f"{us:8.1f} us {rate:6.0f} GOP/s {rate / roof:4.0%}"
        for (us, rate), roof in zip(rates, roofs, strict=True)
    )


if __name__ == "__main__":
    main()
