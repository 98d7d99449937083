"""The three data-free methods on Fashion-MNIST, beside their baselines, on the networks of
data_free_nets.py.

    python benchmarks/data_free_nets.py --cache FOLDER                   # trains what is missing
    # resumes: rows that are there are not measured again
    python benchmarks/data_free_fashion_mnist.py --cache FOLDER
    # the tables, from the rows that are there
    python benchmarks/data_free_fashion_mnist.py --show

Top-1 on all 10,000 test images; one JSON line a row in
benchmarks/results/data_free_fashion_mnist.jsonl. Start it with --nets for one network each to use
several cores.
"""

import argparse
import functools
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from data_free_nets import NETS, SEEDS, images, load
from torch import nn

from subpc.algorithms.blocks.compress import compress_blocks
from subpc.algorithms.blocks.config import BlockConfig
from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.subp.trainer import accuracy
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.compression.calibration import generate
from subpc.progress import silent

RESULTS = Path(__file__).parent / "results" / "data_free_fashion_mnist.jsonl"
GENERATED, CALIBRATION, SIDE, STEPS = 64, 500, 28, 100
SHAPE = (1, 1, SIDE, SIDE)
Row = dict[str, Any]
Make = Callable[..., Any]
BASELINE = {"scales": "max", "criterion": "l2"}
# What serves best where no correlations of images are seen.
NORMAL = {"inputs": "normal", "feedback": False, "ridge": 1e-2}
RANDOM = {"inputs": "random"}
# UDFC as it was measured: feedback, and DF-MPC's ridge where no inputs are lost, came later.
NO_FEEDBACK = {"feedback": False, "ridge_elsewhere": 1e-2}
# family -> settings of a row of its table, and columns: what is compressed how, with which images
COMPRESS: dict[str, Make] = {
    "dfmpc": compress_dfmpc,
    "udfc": compress_udfc,
    "blocks": compress_blocks,
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "dfmpc": [{"low_bits": low, "high_bits": 6} for low in (2, 3, 6)],
    "udfc": [{"ratio": ratio, "bits": bits} for bits in (6, 4) for ratio in (0.1, 0.3, 0.5)],
    "blocks": [{"sparsity": sparsity} for sparsity in (0.25, 0.5, 0.75)],
    "ablation": [{"low_bits": 2, "high_bits": 6}, {"ratio": 0.5, "bits": 4}],
}
COLUMNS: dict[str, dict[str, tuple[Make, dict[str, Any], str]]] = {
    "dfmpc": {
        "naive": (DfmpcConfig.paper, {"recalibration": "none", "compensation": "none"}, ""),
        "paper": (DfmpcConfig.paper, {}, ""),
        "subpc": (DfmpcConfig, {}, ""),
        "subpc, random images": (DfmpcConfig, RANDOM, ""),
        "subpc, normal variables": (DfmpcConfig, NORMAL, ""),
        "subpc, 64 generated": (DfmpcConfig, {}, "generated"),
        "subpc, 500 real": (DfmpcConfig, {}, "calibration"),
    },
    "udfc": {
        "plain": (UdfcConfig, {"method": "plain", **BASELINE}, ""),
        "Neuron Merging": (UdfcConfig, {"method": "merge", **BASELINE}, ""),
        "paper": (UdfcConfig.paper, {"criterion": "l2"}, ""),
        "subpc": (UdfcConfig, {}, ""),
        "subpc, random images": (UdfcConfig, RANDOM | NO_FEEDBACK, ""),
        "subpc, normal variables": (UdfcConfig, {"inputs": "normal"}, ""),
        "subpc, 64 generated": (UdfcConfig, NO_FEEDBACK, "generated"),
        "subpc, 500 real": (UdfcConfig, NO_FEEDBACK, "calibration"),
    },
    "blocks": {
        "magnitude": (BlockConfig, {"criterion": "l1", "compensation": "none"}, ""),
        "subpc": (BlockConfig, {}, ""),
        "subpc, random images": (BlockConfig, RANDOM, ""),
        "subpc, normal variables": (BlockConfig, {"inputs": "normal"}, ""),
        "subpc, 64 generated": (BlockConfig, {}, "generated"),
        "subpc, 500 real": (BlockConfig, {}, "calibration"),
    },
}
FIRST = {"float": 0, "subpc": 1, "naive": 2, "magnitude": 2, "Neuron Merging": 3, "plain": 4}
ABLATION: dict[str, dict[str, dict[str, Any]]] = {
    "dfmpc": {
        "all of it": {},
        "no feedback": {"feedback": False},
        "ridge 0.01": {"ridge": 1e-2},
        "normal variables": {"inputs": "normal"},
        "normal variables, no feedback, ridge 0.01": NORMAL,
        "no solve": {"compensation": "none"},
        "scalar (eq. 27) instead of solve": {"compensation": "scalar"},
        "batch norms left": {"recalibration": "none"},
        "one scale a layer": {"per_channel": False},
        "scales of the paper": {"scales": "paper"},
    },
    "udfc": {
        "all of it": {},
        "feedback": {"feedback": True},
        "normal variables": {"inputs": "normal"},
        "channels by l2": {"criterion": "l2"},
        "one scale a layer": {"per_channel": False},
        "largest weight as scale": {"scales": "max"},
        "pair by pair, covariance behind the ReLU": {
            "statistics": "gaussian",
            "criterion": "l2",
            "ridge": 1e-4,
            "scales": "max",
        },
    },
}


def rows() -> list[Row]:
    """What was measured."""
    return (
        [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    )


def grid(net: str, seed: int) -> list[tuple[str, str, dict[str, Any]]]:
    """(family, column, settings): everything that is measured on a network, what needs no images
    first, the paper's own form last."""
    found: list[tuple[str, str, dict[str, Any]]] = [("float", "float", {})]
    for needs_images in (False, True):
        for family, columns in COLUMNS.items():
            for column, (_, _, inputs) in columns.items():
                if bool(inputs) == needs_images:
                    found += [(family, column, settings) for settings in ROWS[family]]
        if net == "resnet56" and seed == 0 and not needs_images:
            for family, variants in ABLATION.items():
                settings = ROWS["ablation"][0 if family == "dfmpc" else 1]
                found += [(f"ablation {family}", variant, settings) for variant in variants]
    return sorted(found, key=lambda cell: FIRST.get(cell[1], len(FIRST)))


class Network:
    """A trained network and the images that it may be given."""

    def __init__(self, cache: Path, net: str, seed: int) -> None:
        self.model = load(cache, net, seed)

    @functools.cached_property
    def generated(self) -> torch.Tensor:
        """Made from the network alone."""
        found = generate(self.model, GENERATED, SHAPE, steps=STEPS, seed=0, progress=silent).images
        assert found is not None
        return found

    @functools.cached_property
    def calibration(self) -> torch.Tensor:
        """The first training images, without their classes."""
        return next(iter(images("train").training([torch.arange(CALIBRATION)], 0)))[0]

    def compressed(self, family: str, column: str, settings: dict[str, Any]) -> nn.Module:
        """The network under the settings of a row and a column."""
        if family == "float":
            return self.model
        if family.startswith("ablation"):
            family = family.split()[1]
            make, base, inputs = COLUMNS[family]["subpc, random images"]
            fixed = base | ABLATION[family][column]
        else:
            make, fixed, inputs = COLUMNS[family][column]
        given = getattr(self, inputs) if inputs else None
        model: nn.Module = COMPRESS[family](
            self.model, make(**fixed, **settings), images=given, input_shape=SHAPE
        )[0]
        return model


def measure(cache: Path, nets: list[str], seeds: list[int], columns: list[str]) -> None:
    """Append every row that is missing."""
    test = images("t10k")
    for seed, net in itertools.product(seeds, nets):
        known = [
            [row[key] for key in ("net", "seed", "family", "column", "settings")] for row in rows()
        ]
        network = Network(cache, net, seed)
        for family, column, settings in grid(net, seed):
            if [net, seed, family, column, settings] in known or (
                columns and column not in columns
            ):
                continue
            top1 = round(accuracy(network.compressed(family, column, settings), test), 2)
            row = {
                "net": net,
                "seed": seed,
                "family": family,
                "column": column,
                "settings": settings,
                "top1": top1,
            }
            RESULTS.parent.mkdir(exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def cell(found: list[Row]) -> str:
    """Mean and half the range over the seeds, and how many seeds where not three."""
    values = [row["top1"] for row in found]
    if not values:
        return "-"
    spread = f"{statistics.mean(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"
    return spread if len(values) == len(SEEDS) else f"{spread} ({len(values)})"


def show() -> None:
    """The rows as markdown tables."""
    measured = rows()
    for family, columns in COLUMNS.items():
        print(
            f"\n| network | float | {family} | "
            + " | ".join(columns)
            + " |\n|---|---|---|"
            + "---|" * len(columns)
        )
        for net, settings in itertools.product(NETS, ROWS[family]):
            of_net = [row for row in measured if row["net"] == net]
            cells = [
                cell(
                    [
                        r
                        for r in of_net
                        if (r["family"], r["column"], r["settings"]) == (family, c, settings)
                    ]
                )
                for c in columns
            ]
            name = ", ".join(f"{key} {value}" for key, value in settings.items())
            print(
                f"| {net} | {cell([r for r in of_net if r['family'] == 'float'])} | {name} | "
                + " | ".join(cells)
                + " |"
            )
    for family in ABLATION:
        print(f"\n| {family}, resnet56, seed 0 | top-1 |\n|---|---|")
        for row in measured:
            if row["family"] == f"ablation {family}":
                print(f"| {row['column']} | {row['top1']:.1f} |")


def main() -> None:
    """Measure, or show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="where data_free_nets.py put the networks")
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--columns", nargs="*", default=[], help="measure these columns only")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cache is not None:
        measure(options.cache, options.nets, options.seeds, options.columns)
    if options.show or options.cache is None:
        show()


if __name__ == "__main__":
    main()
