"""Channel pruning without data on Fashion-MNIST: plain, Neuron Merging and UDFC, on the networks of data_free_nets.py.

    python benchmarks/data_free_nets.py --cache FOLDER                # trains what is missing, minutes a network
    python benchmarks/data_free_fashion_mnist.py --cache FOLDER       # resumes: rows that are there are not measured again
    python benchmarks/data_free_fashion_mnist.py --show               # the table, from the rows that are there

Top-1 on all 10,000 test pictures; one JSON line a row in benchmarks/results/data_free_fashion_mnist.jsonl.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from data_free_nets import BUILD, accuracy, pictures

from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig

RESULTS = Path(__file__).parent / "results" / "data_free_fashion_mnist.jsonl"
RATIOS, BITS = (0.1, 0.3, 0.5), (6, 4)
# column -> settings
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "Neuron Merging": {"method": "merge"},
    "UDFC, paper's loss": {"method": "udfc", "statistics": "weights", "fold_scale": True},
    "UDFC, gaussian": {"method": "udfc", "statistics": "gaussian"},
}
Row = dict[str, Any]


def rows() -> list[Row]:
    """What was measured."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def measure(cache: Path, seeds: list[int]) -> None:
    """Append every row that is missing for these seeds."""
    keys = ("net", "seed", "method", "ratio", "bits")
    known = {tuple(row[key] for key in keys) for row in rows()}
    test = pictures("t10k")
    grid = [("float", 0.0, 32), *itertools.product(METHODS, RATIOS, BITS)]
    for seed, net, (method, ratio, bits) in itertools.product(seeds, BUILD, grid):
        if (net, seed, method, ratio, bits) in known:
            continue
        model = BUILD[net]()
        model.load_state_dict(torch.load(cache / f"{net}-{seed}.pt", weights_only=True))
        if method != "float":
            model, _, _ = compress_udfc(model.eval(), UdfcConfig(ratio=ratio, bits=bits, **METHODS[method]))
        row = dict(zip(keys, (net, seed, method, ratio, bits), strict=True), top1=round(accuracy(model, test), 2))
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def cell(found: list[Row]) -> str:
    """Mean and half the spread over the seeds."""
    values = [row["top1"] for row in found]
    return f"{statistics.mean(values):.1f} ± {(max(values) - min(values)) / 2:.1f} ({len(values)})" if values else "-"


def show() -> None:
    """The rows as a markdown table: mean ± half the range (number of seeds)."""
    measured = rows()
    print("| network | float | removed | bits | " + " | ".join(METHODS) + " |")
    print("|---|---|---|---|" + "---|" * len(METHODS))
    for net, bits, ratio in itertools.product(BUILD, BITS, RATIOS):
        of_net = [row for row in measured if row["net"] == net]
        cells = [cell([r for r in of_net if (r["method"], r["ratio"], r["bits"]) == (m, ratio, bits)]) for m in METHODS]
        print(f"| {net} | {cell([r for r in of_net if r['method'] == 'float'])} | {ratio:.0%} | {bits} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="where data_free_nets.py put the networks")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cache is not None:
        measure(options.cache, options.seeds)
    if options.show or options.cache is None:
        show()


if __name__ == "__main__":
    main()
