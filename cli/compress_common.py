"""What the data-free methods share on the command line: files and images in, a file out, progress, table or JSON."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from subpc.cli.options import ARCH, IMAGES, MODEL, OUTPUT, SHAPE, TRIPLE, json_option
from subpc.cli.printing import show, show_json
from subpc.files import described

if TYPE_CHECKING:
    from subpc.algorithms.config import Config

FILE_OPTIONS = (
    click.argument("model", type=MODEL),
    click.option("-o", "--output", type=OUTPUT, required=True, help="The file to write, .pt or .safetensors."),
    click.option("--arch", type=ARCH, help="Architecture of a state dict: torchvision:resnet50, timm:NAME or package.module:function."),
    click.option(
        "--shape", "shapes", type=SHAPE, multiple=True, help="Input shape, where the file does not say it: TorchScript, open ONNX shapes."
    ),
    click.option(
        "--inputs",
        type=click.Choice(["random", "normal"]),
        default="random",
        show_default=True,
        help="Followed with where no images are given: random images, or normal variables.",
    ),
    click.option(
        "--calibration",
        type=IMAGES,
        metavar="FOLDER",
        help="Up to 256 unlabelled images to measure statistics on: not data-free.",
    ),
    click.option("--synthetic", type=int, metavar="N", help="Measure them on N images that are generated from the network."),
    click.option("--synthetic-steps", type=int, default=200, show_default=True, help="Steps of matching those to the batch norms."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of generated images."),
    click.option("--max-drop", type=float, metavar="POINTS", help="Find the strongest setting that loses at most so much accuracy."),
    click.option(
        "--eval",
        "evaluation",
        type=IMAGES,
        metavar="FOLDER",
        help="Labelled images for it, a folder a class; or fashion-mnist[:FOLDER].",
    ),
    click.option("--mean", type=TRIPLE, default="0.485,0.456,0.406", show_default=True, help="Subtracted from pixels / 255."),
    click.option("--std", type=TRIPLE, default="0.229,0.224,0.225", show_default=True, help="Divides the difference."),
    click.option(
        "--interpolation",
        type=click.Choice(["bilinear", "bicubic"]),
        default="bilinear",
        show_default=True,
        help="How images are scaled.",
    ),
    json_option,
)
_EXTRAS = ("calibration", "synthetic", "synthetic_steps", "seed", "evaluation", "max_drop")
_PREPARATION = ("mean", "std", "interpolation")


def file_options(function: Callable[..., None]) -> Callable[..., None]:
    """MODEL, and the options that all methods have."""
    for option in reversed(FILE_OPTIONS):
        function = option(function)
    return function


def compress_command(config: "Callable[..., Config]", settings: dict[str, Any], strengths: tuple[str, ...]) -> None:
    """Compress and print. settings: the values of file_options, and what `config` takes; strengths: those that --max-drop searches."""
    from subpc.cli.compress_report import show_report
    from subpc.cli.progress import progress_line

    model, output, arch, as_json = (settings.pop(name) for name in ("model", "output", "arch", "as_json"))
    options = {name: settings.pop(name) for name in _EXTRAS} | {"shape": _one(settings.pop("shapes"))}
    how = {name: settings.pop(name) for name in _PREPARATION}
    with progress_line(quiet=as_json) as progress:
        from subpc.compression.compress import Extras, compress_file
        from subpc.images.prepare import Preparation

        extras = Extras(**options, fixed=_decided(strengths), preparation=Preparation(**how))
        report = compress_file(model, config(**settings), output, arch=arch, extras=extras, progress=progress)
    if as_json:
        show_json({**report.to_dict(), "output": str(output), "bytes_on_disk": report.file_bytes})
        return
    show_report(report, show)
    show(f"wrote {described(output)}")


def _one(shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...] | None:
    if len(shapes) > 1:
        raise click.UsageError("networks of one input are compressed, for one size of it: give --shape once")
    return shapes[0] if shapes else None


def _decided(strengths: tuple[str, ...]) -> frozenset[str]:
    """The strengths that the user gave."""
    source = click.get_current_context().get_parameter_source
    return frozenset(name for name in strengths if source(name) is not ParameterSource.DEFAULT)
