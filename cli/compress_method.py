"""The command of a data-free compression method, made from what the method says of itself: files
and images in, a file out."""

import typing
from collections.abc import Callable
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any

import click
from click.core import ParameterSource

from subpc.algorithms.method import CompressionMethod, Option
from subpc.cli.options import (
    ARCH,
    COUNT_OR_IMAGES,
    IMAGES,
    MODEL,
    OUTPUT,
    SHAPE,
    FileCommand,
    interpolation_option,
    json_option,
    mean_option,
    std_option,
)
from subpc.cli.printing import show, show_json
from subpc.files import described

Decorate = Callable[[Callable[..., None]], Callable[..., None]]
FILE_OPTIONS: tuple[Decorate, ...] = (
    click.argument("model", type=MODEL),
    click.option(
        "-o", "--output", type=OUTPUT, required=True, help="The file to write, .pt or .safetensors."
    ),
    click.option(
        "--arch",
        type=ARCH,
        help=(
            "Architecture of a state dict: torchvision:resnet50, timm:NAME or"
            " package.module:function."
        ),
    ),
    click.option(
        "--shape",
        "shapes",
        type=SHAPE,
        multiple=True,
        help="Input shape, where the file does not say it: TorchScript, open ONNX shapes.",
    ),
    click.option(
        "--calibration",
        type=IMAGES,
        metavar="FOLDER",
        help="Up to 256 unlabelled images to measure statistics on: not data-free.",
    ),
    click.option(
        "--synthetic",
        type=int,
        metavar="N",
        help="Measure them on N images that are generated from the network.",
    ),
    click.option(
        "--synthetic-steps",
        type=int,
        default=200,
        show_default=True,
        help="Steps of matching those to the batch norms.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of generated images."),
    click.option(
        "--distill",
        type=COUNT_OR_IMAGES,
        metavar="FOLDER|N",
        help=(
            "Let the result learn from MODEL, minutes, on unlabelled images or on N generated ones."
        ),
    ),
    click.option(
        "--distill-minutes",
        type=float,
        default=30.0,
        show_default=True,
        help="The longest that it learns; it goes on where it was interrupted.",
    ),
    click.option(
        "--distill-steps",
        type=int,
        default=1000,
        show_default=True,
        help="Batches of 32 that it learns from, if there is time.",
    ),
    click.option(
        "--distill-rate", type=float, default=3e-4, show_default=True, help="Rate of learning."
    ),
    click.option(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="Find the strongest setting that loses at most so much accuracy.",
    ),
    click.option(
        "--eval",
        "evaluation",
        type=IMAGES,
        metavar="FOLDER",
        help="Labelled images for it, a folder a class; or fashion-mnist[:FOLDER].",
    ),
    mean_option,
    std_option,
    interpolation_option,
    json_option,
)
_EXTRAS = ("calibration", "synthetic", "synthetic_steps", "seed", "evaluation", "max_drop")
_PREPARATION = ("mean", "std", "interpolation")


_MODEL_AND_OUTPUT = """\
MODEL is what `subpc compile` takes: .pt2, TorchScript or .onnx, a state dict with --arch, or a file
that subpc compressed. OUTPUT holds plain tensors and descriptions, no code;
`subpc compile` and this command take it with no further word."""


def command_of(method: CompressionMethod[Any]) -> click.Command:
    """`subpc compress NAME`: the options that all methods have, then those of this one."""
    examples = [*(f"compress {line}" for line in method.examples), "compile small.pt -o small.so"]
    lines = "".join(f"\n  subpc {line}" for line in examples)

    def call(**values: Any) -> None:
        _compress(method, values)

    own = [_option(method, option) for option in method.options]
    for decorate in (*reversed(own), *reversed(FILE_OPTIONS)):
        call = decorate(call)
    text = f"{method.text}\n\n{_MODEL_AND_OUTPUT}\n\n\b\nExamples:{lines}"
    return click.command(method.name, cls=FileCommand, help=text)(call)


def _option(method: CompressionMethod[Any], option: Option) -> Decorate:
    """The option of the command line for one field of the method's configuration."""
    default = next(field.default for field in fields(method.config) if field.name == option.setting)
    assert default is not MISSING, f"{method.name}: {option.setting} has no default"
    name = f"--{option.setting.replace('_', '-')}"
    facts: dict[str, Any] = {
        "help": option.help,
        "default": default,
        "show_default": default is not None,
    }
    kinds = _kinds(method, option.setting)
    if tuple in kinds:
        shown = f" [default: {', '.join(default)}]" if default else ""
        facts = {"help": option.help + shown, "multiple": True, "metavar": option.metavar}
    elif bool in kinds:
        name += "" if default is False else f"/--no-{name.removeprefix('--')}"
        facts |= {"is_flag": True} if default is False and not option.spelling else {}
    else:
        facts["type"] = (
            click.Choice(option.accepted) if option.accepted else next(iter(kinds - {NoneType}))
        )
    return click.option(option.spelling or name, option.setting, **facts)


def _kinds(method: CompressionMethod[Any], setting: str) -> set[Any]:
    """The types that the field takes: {float}, {int, NoneType}, {tuple}."""
    hint = typing.get_type_hints(method.config)[setting]
    origin = typing.get_origin(hint)
    return {hint} if origin is None else {tuple} if origin is tuple else set(typing.get_args(hint))


def _compress(method: CompressionMethod[Any], values: dict[str, Any]) -> None:
    """Compress and print. values: those of FILE_OPTIONS and of the method's options, by name."""
    from subpc.cli.compress_report import show_report
    from subpc.cli.progress import progress_line

    model, output, as_json = values["model"], values["output"], values["as_json"]
    decided = _decided()
    with progress_line(quiet=as_json) as progress:
        from subpc.compression.compress import compress_file
        from subpc.compression.extras import Extras
        from subpc.images.prepare import Preparation

        settings = {
            option.setting: (
                None
                if option.none is not None and values[option.setting] == option.none
                else values[option.setting]
            )
            for option in method.options
            if option.setting in decided
        }
        extras = Extras(
            **{name: values[name] for name in _EXTRAS},
            shape=_one(values["shapes"]),
            fixed=decided,
            preparation=Preparation(**{name: values[name] for name in _PREPARATION}),
            lesson=_lesson(values),
        )
        config = method.config(**settings)
        report = compress_file(
            model, config, output, arch=values["arch"], extras=extras, progress=progress
        )
    if as_json:
        show_json({**report.to_dict(), "output": str(output), "bytes_on_disk": report.file_bytes})
        return
    show_report(report, show)
    show(f"wrote {described(output)}")


def _lesson(values: dict[str, Any]) -> Any:
    """What --distill asks for, None without it."""
    from subpc.algorithms.distill.config import DistillConfig
    from subpc.compression.distillation import Lesson

    if values["distill"] is None:
        return None
    settings = {name: values[f"distill_{name}"] for name in ("minutes", "steps", "rate")}
    return Lesson(source=values["distill"], config=DistillConfig(seed=values["seed"], **settings))


def _one(shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...] | None:
    if len(shapes) > 1:
        raise click.UsageError(
            "networks of one input are compressed, for one size of it: give --shape once"
        )
    return shapes[0] if shapes else None


def _decided() -> frozenset[str]:
    """Names of everything that the user gave."""
    context = click.get_current_context()
    return frozenset(
        name
        for name in context.params
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    )
