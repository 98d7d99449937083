"""What the uniform rule is for: work of each thread, and time, with uniform and with layer-wise 1xN
patterns on real trained weights.

    # MobileNetV2 and EfficientNet-Lite0 (ImageNet), ResNet-20 (Fashion-MNIST)
    python benchmarks/load_balance.py
    python benchmarks/load_balance.py --no-time  # work alone, which no busy machine disturbs

Both patterns keep the same number of blocks of a layer, the largest by magnitude: `uniform` as many
in each group of 16 filters, `layer-wise` wherever they are. Work is what the busiest thread does
over the mean, all pruned layers together, each layer waiting for its slowest thread; with one
thread a group of filters, as in the paper, and with the tasks that the compiled kernels share out.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from data_free_pretrained import load
from torch import nn

import subpc
from subpc.algorithms.subp.block_masks import Subp
from subpc.algorithms.subp.config import SubpConfig
from subpc.bench.bench import time_engines
from subpc.compiler.compile_model import rewritten
from subpc.demo.show import CLOTHES
from subpc.frontend.load_network import load_network
from subpc.machine.target import parse_target
from subpc.passes.pipeline import lower_model
from subpc.passes.program import WeightStore
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import Kernel
from subpc.schedules.layout import Frame
from subpc.schedules.workload import Choice

N, SPARSITY = 16, 0.75
THREADS = (2, 4, 8, 16, 32, 64)
Work = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trained network."""

    name: str
    shape: tuple[int, ...]
    build: Callable[[], nn.Module]


CASES = (
    Case(name="mobilenet_v2", shape=(1, 3, 224, 224), build=lambda: load("mobilenet_v2")),
    Case(
        name="efficientnet_lite0",
        shape=(1, 3, 224, 224),
        build=lambda: load("efficientnet_lite0"),
    ),
    Case(
        name="resnet20, width 32",
        shape=(1, 1, 28, 28),
        build=lambda: load_network(CLOTHES / "dense.safetensors").model.eval(),
    ),
)


def pruned(case: Case, *, layerwise: bool) -> nn.Module:
    """The case's network without three quarters of its blocks."""
    model = case.build()
    subp = Subp(model, SubpConfig(n=N, sparsity=SPARSITY, criterion="l1"))
    subp.prune_once(layerwise=layerwise)
    subp.finalize()
    return model


def layers(model: nn.Module, shape: tuple[int, ...], isa: VectorIsa) -> list[tuple[Work, Work]]:
    """For each sparse layer: kept blocks of each group, and work of each task of its kernel in
    their order."""
    (network,) = rewritten(
        model, None, shapes=[shape], arch=None, trust_pickle=False, isa=isa, sparse="always"
    )
    lowered = lower_model(network, isa=isa, weights=WeightStore())
    found = []
    for step in lowered.program.steps:
        decision = lowered.decisions.get(step.layer)
        if (
            step.kernel.family in SHARED_OUT
            and decision is not None
            and decision.pattern is not None
        ):
            kept = decision.pattern.kept.sum(axis=1).astype(float)
            found.append((kept, tasks(step.kernel, decision.pattern.n, kept, isa)))
    return found


def tasks(kernel: Kernel, group: int, kept: Work, isa: VectorIsa) -> Work:
    """Work of each task: pixels of its tile times the kept channels of its row blocks."""
    choice, layout = kernel.choice(isa), kernel.result_layout
    assert choice is not None and layout is not None
    rows, blocks, pixels = SHARED_OUT[kernel.family](choice, layout.frame, isa)
    of_rows = np.repeat(kept, group // rows)
    chunks = np.add.reduceat(of_rows, np.arange(0, len(of_rows), blocks))
    return np.tile(chunks, pixels) if choice["pixels_outer"] else np.repeat(chunks, pixels)


def flat_tasks(choice: Choice, frame: Frame, isa: VectorIsa) -> tuple[int, int, int]:
    """Filters of a row block, row blocks of a task, and tiles of pixels."""
    pixels = -(-frame.pixels // (choice["vectors"] * isa.lanes))
    return choice["rows"], choice["blocks"], pixels


def direct_tasks(choice: Choice, frame: Frame, isa: VectorIsa) -> tuple[int, int, int]:
    """The same of a kernel with filters in the lanes."""
    pixels = -(-frame.height // choice["rows"]) * -(-frame.width // choice["columns"])
    return choice["vectors"] * isa.lanes, 1, pixels


# Sparse kernels whose tasks are known here.
SHARED_OUT = {"bsr_conv_f32": flat_tasks, "bsr_direct_conv_f32": direct_tasks}


def imbalance(works: list[Work], threads: int) -> float:
    """Time of all layers one after the other, where each thread has a contiguous share of a layer's
    items, over an equal share."""
    busiest, mean = 0.0, 0.0
    for work in works:
        share = -(-len(work) // threads)
        busiest += max(work[start : start + share].sum() for start in range(0, len(work), share))
        mean += work.sum() / threads
    return busiest / mean


def time_both(case: Case) -> str:
    """Milliseconds of both patterns on this machine, taking turns."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.so" for name in ("uniform", "layer-wise")}
        for name, path in paths.items():
            subpc.compile(
                pruned(case, layerwise=name == "layer-wise"),
                shapes=[case.shape],
                sparse="always",
                output=path,
            )
        report = time_engines(
            paths["uniform"], libraries={"layer-wise": paths["layer-wise"]}, runs=200, rounds=10
        )
    ms = [e.timing.p50 if e.timing else float("nan") for e in report.engines]
    return (
        f"{case.name}: uniform {ms[0]:.3f} ms, layer-wise {ms[1]:.3f} ms ({ms[1] / ms[0]:.3f}) on"
        f" {report.threads} threads {report.warning}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-time", action="store_true")
    options = parser.parse_args()
    isa = parse_target("llvm -mcpu=skylake-avx512").isa
    print(
        "| network | shared out by | pattern | "
        + " | ".join(f"{t} threads" for t in THREADS)
        + " |"
    )
    print("|---|---|---|" + "---|" * len(THREADS))
    for case in CASES:
        for name in ("uniform", "layer-wise"):
            found = layers(pruned(case, layerwise=name == "layer-wise"), case.shape, isa)
            for index, how in enumerate(("groups", "tasks of the kernels")):
                cells = " | ".join(
                    f"{imbalance([layer[index] for layer in found], threads):.2f}"
                    for threads in THREADS
                )
                print(f"| {case.name} | {how} | {name} | {cells} |", flush=True)
    for case in () if options.no_time else CASES:
        print(time_both(case), flush=True)


if __name__ == "__main__":
    main()
