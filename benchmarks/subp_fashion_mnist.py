"""SUBP beside its baselines on Fashion-MNIST: a ResNet-20 of width 32, N = 16, at equal total
epochs, three seeds.

    # trains what is missing; start it twice to use two cores
    python benchmarks/subp_fashion_mnist.py --cache FOLDER
    # the same at 75 % with other settings of SUBP, seed 0
    python benchmarks/subp_fashion_mnist.py --cache FOLDER --ablation
    # from the dense networks of seed 0 to 2, with and without them as teachers
    python benchmarks/subp_fashion_mnist.py --cache FOLDER --teacher
    # all tables, from the logs that are there
    python benchmarks/subp_fashion_mnist.py --show

A run that was interrupted goes on from its last epoch. Its log, a CSV line an epoch, is kept in
benchmarks/results/subp_fashion_mnist; the networks and their checkpoints are in FOLDER. One thread
a run, about ten minutes each. --device cuda trains on a GPU.
"""

import argparse
import csv
import itertools
import shutil
import statistics
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.train_config import TrainConfig
from subpc.training.job import Job
from subpc.training.train_files import train_files

LOGS = Path(__file__).parent / "results" / "subp_fashion_mnist"
SPARSITIES, SEEDS, EPOCHS = (0.75, 0.5, 0.9), (0, 1, 2), 10
ARCH, OPTIONS = "subpc:resnet20", {"width": 32, "stem_stride": 2}
# What short trainings need, by the comparison in docs/subp.md: an early end, a decided draw, no
# extra decay.
SUBP: dict[str, Any] = {"start": 0.0, "end": 0.4, "temperature": 0.02, "soft_decay": 0.0}
# column -> settings of SubpConfig and of TrainConfig
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "SUBP, BPAR": (SUBP, {"mask_updates": 10}),
    "SUBP, L1": ({**SUBP, "criterion": "l1"}, {"mask_updates": 10}),
    "1xN one-shot": ({"criterion": "l1"}, {"method": "oneshot", "weight_decay": 5e-4}),
}
DENSE = "dense"
# From the paper's settings to those above, one change a row, then the weight decay of SUBP and
# one-shot exchanged, all at ABLATED.
_UPDATES = {"mask_updates": 10}
ABLATION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper's settings": ({}, {}),
    "ten updates": ({}, _UPDATES),
    "early end": ({"start": 0.0, "end": 0.4}, _UPDATES),
    "cold draw": ({"start": 0.0, "end": 0.4, "temperature": 0.02}, _UPDATES),
    "SUBP, BPAR": METHODS["SUBP, BPAR"],
    "SUBP, decay 5e-4": (SUBP, {**_UPDATES, "weight_decay": 5e-4}),
    "1xN one-shot": METHODS["1xN one-shot"],
    "1xN one-shot, decay 1e-4": ({"criterion": "l1"}, {"method": "oneshot"}),
}
ABLATED = 0.75
# From the dense network, with which the cost is equal: a step with a teacher takes a third longer.
FROM_DENSE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "from dense, 13 epochs": (SUBP, {**_UPDATES, "epochs": 13}),
    "from dense, its teacher": (SUBP, _UPDATES),
}
TAUGHT = "from dense, its teacher"
Run = tuple[str, float, int]


def config(method: str, sparsity: float, seed: int) -> TrainConfig:
    """The settings of one run."""
    if method == DENSE:
        return TrainConfig(method="dense", epochs=EPOCHS, amp=True, seed=seed)
    masks, training = (METHODS | ABLATION | FROM_DENSE)[method]
    return TrainConfig(
        subp=SubpConfig(n=16, sparsity=sparsity, seed=seed, **masks),
        amp=True,
        seed=seed,
        **{"epochs": EPOCHS, **training},
    )


def name(method: str, sparsity: float, seed: int) -> str:
    """The file name of a run's log."""
    words = "-".join(method.lower().replace(",", "").replace("'s", "").split())
    return (
        f"{words}-{seed}" if method == DENSE else f"{words}-{sparsity:.0%}-{seed}".replace("%", "")
    )


def grid(*, ablation: bool, teacher: bool) -> list[Run]:
    """Every run, the first seed of all before the second."""
    if teacher:
        runs = [(method, sparsity) for sparsity in (0.9, 0.75) for method in FROM_DENSE]
        return [
            run for s in SEEDS for run in [(DENSE, 0.0, s), *((*settings, s) for settings in runs)]
        ]
    if ablation:
        return [(method, ABLATED, 0) for method in ABLATION]
    return [
        run
        for seed in SEEDS
        for run in [(DENSE, 0.0, seed), *itertools.product(METHODS, SPARSITIES, (seed,))]
    ]


def measure(cache: Path, data: str, device: str, runs: list[Run]) -> None:
    """Train what has no whole log and is not being trained by another process."""
    cache.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    for method, sparsity, seed in runs:
        run = name(method, sparsity, seed)
        try:
            with FileLock(cache / f"{run}.lock", timeout=0):
                dense = cache / f"{name(DENSE, 0.0, seed)}.safetensors"
                wanted = not (dense if method == DENSE else LOGS / f"{run}.csv").exists()
                if wanted:
                    job = Job(
                        arch=ARCH,
                        arch_options=OPTIONS,
                        data=data,
                        output=cache / f"{run}.safetensors",
                        init=dense if method in FROM_DENSE else None,
                        teacher=dense if method == TAUGHT else None,
                        resume=True,
                        device=device,
                    )
                    train(job, config(method, sparsity, seed))
                    shutil.copy(cache / f"{run}.csv", LOGS)
        except Timeout:
            continue


def train(job: Job, settings: TrainConfig) -> None:
    """One run, from its checkpoint if there is one."""
    run = job.output.stem
    report = train_files(
        job,
        settings,
        on_epoch=lambda epochs: print(run, epochs[-1].epoch, epochs[-1].top1, flush=True),
    )
    print(f"{run}: {report['top1']:.2f} %", flush=True)


def top1(method: str, sparsity: float, seed: int) -> float | None:
    """The accuracy after the last epoch of a run that is there."""
    path = LOGS / f"{name(method, sparsity, seed)}.csv"
    return float(list(csv.DictReader(path.open()))[-1]["top1"]) if path.exists() else None


def cell(values: list[float]) -> str:
    """Mean and half the range."""
    return (
        f"{statistics.mean(values):.2f} ± {(max(values) - min(values)) / 2:.2f} ({len(values)})"
        if values
        else "-"
    )


def row(method: str, sparsity: float) -> list[float]:
    """The accuracies of the seeds that are there."""
    return [value for seed in SEEDS if (value := top1(method, sparsity, seed)) is not None]


def show() -> None:
    """The logs as markdown tables: mean ± half the range (number of seeds)."""
    for methods, sparsities in ((METHODS, sorted(SPARSITIES)), (FROM_DENSE, (0.75, 0.9))):
        print("| pruned | dense | " + " | ".join(methods) + " |\n|---|---|" + "---|" * len(methods))
        for sparsity in sparsities:
            cells = [cell(row(DENSE, 0.0)), *(cell(row(method, sparsity)) for method in methods)]
            print(f"| {sparsity:.0%} | " + " | ".join(cells) + " |")
        print()
    print(f"| settings, {ABLATED:.0%}, seed 0 | top-1 |\n|---|---|")
    for method in ABLATION:
        accuracy = top1(method, ABLATED, 0)
        print(f"| {method} | {'-' if accuracy is None else f'{accuracy:.2f}'} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, help="where the networks and checkpoints are kept")
    parser.add_argument(
        "--data", default="fashion-mnist", help="fashion-mnist or fashion-mnist:FOLDER"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cache is not None:
        runs = grid(ablation=options.ablation, teacher=options.teacher)
        measure(options.cache, options.data, options.device, runs)
    if options.show or options.cache is None:
        show()


if __name__ == "__main__":
    main()
