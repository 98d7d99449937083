"""`subpc run`: arrays or a picture in, arrays or classes out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import INPUT, INPUT_TEXT, OUTPUT, TRIPLE, FileCommand, json_option, threads_option
from subpc.cli.printing import show, show_json
from subpc.errors import ConfigError
from subpc.files import described, replacing

if TYPE_CHECKING:
    from subpc.runtime import CompiledModel


@click.command("run", cls=FileCommand)
@click.argument("library", type=INPUT)
@click.option(
    "--input", "inputs", type=INPUT_TEXT, multiple=True, metavar="[NAME=]FILE.npy", help="Input array; repeat for several inputs."
)
@click.option("-o", "--output", type=OUTPUT, help="Write the output: .npy, or .npz for all outputs by name.")
@click.option("--image", type=INPUT, help="Use a picture as input and print the best classes.")
@click.option("--labels", type=INPUT_TEXT, help="Class names: `imagenet`, or a text file with one name a line.")
@click.option("--mean", type=TRIPLE, default="0.485,0.456,0.406", show_default=True, help="Subtracted from x / 255.")
@click.option("--std", type=TRIPLE, default="0.229,0.224,0.225", show_default=True, help="Divides the difference.")
@click.option("--size", type=int, default=None, help="Side of the centre crop. [default: the model's input]")
@click.option("--resize", type=int, default=None, help="Shorter side before the crop. [default: size * 256 / 224]")
@click.option("--interpolation", type=click.Choice(["bilinear", "bicubic"]), default="bilinear", show_default=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes to print.")
@threads_option
@json_option
def command(library: Path, inputs: tuple[str, ...], output: Path | None, image: Path | None, as_json: bool, **rest: Any) -> None:
    """Run LIBRARY on .npy arrays, or on a picture.

    \b
    Examples:
      subpc run model.so --input x.npy -o y.npy
      subpc run model.so --image cat.png --labels imagenet
    """
    from subpc.runtime import load

    if bool(inputs) == bool(image):
        raise click.UsageError("give either --input FILE.npy or --image PICTURE")
    if output is not None and output.suffix not in (".npy", ".npz"):
        raise click.UsageError(f"--output {output} has to end in .npy or .npz")
    model = load(library, threads=rest["threads"])
    values = _read_inputs(model, inputs) if inputs else _read_picture(model, image, rest)
    outputs = model.run(values)
    if output is not None:
        _write(output, outputs)
    _print(outputs, rest if image or rest["labels"] else None, as_json)
    if output is not None and not as_json:
        show(f"wrote {described(output)}")


def _read_inputs(model: "CompiledModel", inputs: tuple[str, ...]) -> dict[str, Any]:
    names = [t.name for t in model.functions[0].inputs]
    values: dict[str, Any] = {}
    for index, text in enumerate(inputs):
        name, _, file = text.partition("=")
        if name not in names or not file:
            name, file = names[index] if index < len(names) else f"input {index}", text
        if name in values:
            raise ConfigError(f"input {name!r} was given twice; the model takes {names}")
        values[name] = _read_array(file)
    return values


def _read_array(file: str) -> Any:
    from subpc.array_file import read_npy

    array = read_npy(file)
    if isinstance(array, dict):
        raise ConfigError(f"{file} is an archive; give one .npy file for each input: --input NAME=FILE.npy")
    return array


def _read_picture(model: "CompiledModel", image: Path | None, rest: dict[str, Any]) -> dict[str, Any]:
    from subpc.image import Preparation, read_image

    info = model.functions[0].inputs[0]
    if len(model.functions[0].inputs) != 1 or len(info.shape) != 4 or info.shape[1] != 3:
        raise ConfigError(f"--image needs a model with one input of shape (1, 3, height, width); this one takes {info.shape}")
    options = {name: rest[name] for name in ("resize", "mean", "std", "interpolation")}
    return {info.name: read_image(str(image), Preparation(size=rest["size"] or info.shape[2], **options))}


def _write(output: Path, outputs: dict[str, Any]) -> None:
    import numpy as np

    from subpc.arrays import save_arrays

    if output.suffix == ".npy" and len(outputs) > 1:
        raise ConfigError(f"the model has {len(outputs)} outputs ({', '.join(outputs)}); write them to a .npz file")
    with replacing(output) as file:
        if output.suffix == ".npy":
            np.save(file, next(iter(outputs.values())), allow_pickle=False)
        else:
            save_arrays(file, outputs)


def _print(outputs: dict[str, Any], picture: dict[str, Any] | None, as_json: bool) -> None:
    from subpc.image import best_classes, read_labels

    facts: dict[str, Any] = {"outputs": {n: {"shape": list(a.shape), "dtype": str(a.dtype)} for n, a in outputs.items()}}
    if picture is not None:
        labels = read_labels(picture["labels"]) if picture["labels"] else None
        rows = best_classes(next(iter(outputs.values()))[0], labels, picture["top"])
        facts["classes"] = [{"index": i, "name": name, "probability": p} for i, name, p in rows]
    if as_json:
        show_json(facts)
        return
    for name, array in outputs.items():
        if picture is None:
            span = f", from {float(array.min()):.6g} to {float(array.max()):.6g}" if array.size else ""
            show(f"{name}: {array.dtype}{list(array.shape)}{span}")
    for row in facts.get("classes", []):
        show(f"{row['probability']:7.2%}  {row['name']} ({row['index']})")
