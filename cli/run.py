"""`subpc run`: arrays or an image in, arrays or classes out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import (
    INPUT,
    INPUT_TEXT,
    LIBRARY,
    OUTPUT,
    FileCommand,
    json_option,
    mean_option,
    std_option,
    threads_option,
)
from subpc.cli.printing import show, show_json
from subpc.errors import ConfigError
from subpc.files import described, replacing

if TYPE_CHECKING:
    from subpc.images.output import Seen
    from subpc.runtime.model import CompiledModel


@click.command("run", cls=FileCommand)
@click.argument("library", type=LIBRARY)
@click.option(
    "--input",
    "inputs",
    type=INPUT_TEXT,
    multiple=True,
    metavar="[NAME=]FILE.npy",
    help="Input array; repeat for several inputs.",
)
@click.option(
    "-o", "--output", type=OUTPUT, help="Write the output: .npy, or .npz for all outputs by name."
)
@click.option(
    "--image",
    type=INPUT,
    help="Use an image as input; print the best classes, or those of its pixels.",
)
@click.option(
    "--mask", type=OUTPUT, help="Write the class of every pixel as a PNG file (segmentation)."
)
@click.option(
    "--labels",
    type=INPUT_TEXT,
    help="Class names: `imagenet`, or a text file with one name a line.",
)
@mean_option
@std_option
@click.option(
    "--size",
    type=int,
    default=None,
    help=(
        "Side of the centre crop. [default: the model's input; stretched to it if that is no"
        " square]"
    ),
)
@click.option(
    "--resize",
    type=int,
    default=None,
    help="Shorter side before the crop. [default: size * 256 / 224]",
)
@click.option(
    "--interpolation",
    type=click.Choice(["bilinear", "bicubic"]),
    default="bilinear",
    show_default=True,
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes to print."
)
@threads_option
@json_option
def command(
    library: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    image: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Run LIBRARY on .npy arrays, or on an image.

    \b
    Examples:
      subpc run model.so --input x.npy -o y.npy
      subpc run model.so --input image=x.npy --input mask=m.npy -o y.npz
      subpc run model.so --image cat.png --labels imagenet
      subpc run segmentation.so --image street.png --mask classes.png
    """
    from subpc.runtime.model import load

    if bool(inputs) == bool(image):
        raise click.UsageError("give either --input FILE.npy or --image IMAGE")
    if output is not None and output.suffix not in (".npy", ".npz"):
        raise click.UsageError(f"--output {output} has to end in .npy or .npz")
    if rest["mask"] is not None and rest["mask"].suffix.lower() != ".png":
        raise click.UsageError(f"--mask {rest['mask']} has to end in .png")
    model = load(library, threads=rest["threads"])
    values = _read_inputs(model, inputs) if inputs else _read_image(model, image, rest)
    outputs = model.run(values)
    seen = _look(model, outputs, rest) if image or rest["labels"] or rest["mask"] else None
    if output is not None:
        _write(output, outputs)
    if rest["mask"] is not None and seen is not None:
        from subpc.images.output import save_mask

        save_mask(seen.mask, rest["mask"])
    _print(outputs, seen, as_json)
    if not as_json:
        show(*(f"wrote {described(path)}" for path in (output, rest["mask"]) if path is not None))


def _read_inputs(model: "CompiledModel", inputs: tuple[str, ...]) -> dict[str, Any]:
    """Arrays by input name: those given by name, then the others in order."""
    names = list(model.input_names)
    files: dict[str, str] = {}
    unnamed = []
    for text in inputs:
        name, file = next(
            ((n, text.removeprefix(f"{n}=")) for n in names if text.startswith(f"{n}=")), ("", text)
        )
        if not name:
            unnamed.append(_existing(file, model))
        elif name in files:
            raise ConfigError(f"input {name!r} was given twice; the model takes {_listed(model)}")
        else:
            files[name] = file
    left = [name for name in names if name not in files]
    if len(unnamed) != len(left):
        raise ConfigError(
            f"{len(inputs)} inputs were given; the model takes {_listed(model)}: --input"
            " NAME=FILE.npy for each"
        )
    files |= dict(zip(left, unnamed, strict=True))
    return {name: _read_array(files[name]) for name in names}


def _existing(file: str, model: "CompiledModel") -> str:
    """A file without a name before it; where there is none, the name was a wrong one."""
    name, separator, _ = file.partition("=")
    if separator and not os.path.exists(file):
        raise ConfigError(f"the model has no input {name!r}; it takes {_listed(model)}")
    return file


def _listed(model: "CompiledModel") -> str:
    return ", ".join(f"{t.name} ({t.dtype} {','.join(map(str, t.shape))})" for t in model.inputs)


def _read_array(file: str) -> Any:
    from subpc.runtime.arrays import read_npy

    array = read_npy(file)
    if isinstance(array, dict):
        raise ConfigError(
            f"{file} is an archive; give one .npy file for each input: --input NAME=FILE.npy"
        )
    return array


def _read_image(model: "CompiledModel", image: Path | None, rest: dict[str, Any]) -> dict[str, Any]:
    from subpc.images.input import image_input, layout_of
    from subpc.images.prepare import Preparation

    if len(model.inputs) != 1:
        raise ConfigError(
            f"--image needs a model with one input; this one takes {_listed(model)}: give arrays"
            " with --input"
        )
    info = min(
        (function.inputs[0] for function in model.functions),
        key=lambda t: t.shape[0] if t.shape else 0,
    )
    options = {name: rest[name] for name in ("resize", "mean", "std", "interpolation")}
    how = Preparation(size=rest["size"] or layout_of(info).width, **options)
    return {info.name: image_input(str(image), info, how, rest["size"])}


def _look(model: "CompiledModel", outputs: dict[str, Any], rest: dict[str, Any]) -> "Seen":
    from subpc.images.input import is_channels_last
    from subpc.images.output import look
    from subpc.images.prepare import read_labels

    labels = read_labels(rest["labels"]) if rest["labels"] else None
    return look(outputs, labels, rest["top"], last=is_channels_last(model.inputs[0]))


def _write(output: Path, outputs: dict[str, Any]) -> None:
    import numpy as np

    from subpc.runtime.arrays import save_arrays

    if output.suffix == ".npy" and len(outputs) > 1:
        raise ConfigError(
            f"the model has {len(outputs)} outputs ({', '.join(outputs)}); write them to a .npz"
            " file"
        )
    with replacing(output) as file:
        if output.suffix == ".npy":
            np.save(file, next(iter(outputs.values())), allow_pickle=False)
        else:
            save_arrays(file, outputs)


def _print(outputs: dict[str, Any], seen: "Seen | None", as_json: bool) -> None:
    from subpc.images.output import summary

    if as_json:
        facts: dict[str, Any] = {
            "outputs": {
                n: {"shape": list(a.shape), "dtype": str(a.dtype)} for n, a in outputs.items()
            }
        }
        if seen is not None:
            facts["classes"] = [
                {"index": i, "name": name, "probability": p} for i, name, p in seen.classes
            ]
            facts["pixels"] = [
                {"index": i, "name": name, "share": share} for i, name, share in seen.pixels
            ]
        show_json(facts)
        return
    for name, array in outputs.items():
        if seen is None or not seen.classes or name != seen.output:
            show(summary(name, array))
        if seen is None or name != seen.output:
            continue
        for index, label, probability in seen.classes:
            show(f"{probability:7.2%}  {label} ({index})")
        for index, label, share in seen.pixels:
            show(f"{share:7.2%} of the pixels  {label} ({index})")
