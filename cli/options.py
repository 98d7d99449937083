"""Option types that several commands share, and the command that looks after the user's files."""

import os
from pathlib import Path
from typing import Any

import click

from subpc.errors import ConfigError, ModelFileError
from subpc.files import check_outputs
from subpc.library.report import FLOATS, PRECISIONS


class InputFile(click.Path):
    """A file or folder that a command reads."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def files(self, value: Path) -> list[Path]:
        """Everything that is read for this name."""
        return [value]

    def check(self, value: Path) -> None:
        """Nothing: the command itself says at once that the file is not there, and what would make
        one."""


class InputData(InputFile):
    """Images or arrays, for a command that imports much before it reads them."""

    def check(self, value: Path) -> None:
        """ConfigError for a file or folder that is not there."""
        if reason := _missing(value):
            raise ConfigError(f"{reason}.")


class InputLibrary(InputFile):
    """What `subpc compile` wrote."""

    def check(self, value: Path) -> None:
        """ModelFileError for a library that is not there."""
        if reason := _missing(value):
            raise ModelFileError(f"{reason}.")


class InputModel(InputLibrary):
    """A model, which may consist of several files."""

    def files(self, value: Path) -> list[Path]:
        """See InputFile."""
        from subpc.model_files import model_files

        return model_files(value)


class InputText(click.ParamType):  # type: ignore[type-arg]
    """A word, a file, or both with a sign between: `auto`, `x.npy`, `image=x.npy`,
    `imagefolder:images`.

    words: those that stand for no file, and with a colon at their end those that a file follows;
    path: what else is accepted, `count` of them instead, too. Where nothing is given the command
    itself looks for the file.
    """

    name = "text"

    def __init__(self, *words: str, path: str = "", count: bool = False) -> None:
        self.words, self.path, self.count = words, path, count

    def check(self, value: str) -> None:
        """ConfigError for a file that is not there."""
        if value in self.words or (self.count and value.isdecimal()):
            return
        start = next(
            (word for word in self.words if word.endswith(":") and value.startswith(word)), ""
        )
        if (start or self.path) and (reason := _missing(Path(value.removeprefix(start)))):
            accepted = [
                *([self.path] if self.path else []),
                *(f"{w}FOLDER" if w.endswith(":") else w for w in self.words),
            ]
            raise ConfigError(f"{reason}; accepted: {', '.join(accepted)}.")

    def files(self, value: str) -> list[Path]:
        """See InputFile."""
        parts = {value, value.partition("=")[2], value.partition(":")[2]} - {""}
        return [Path(part) for part in parts]


class InputArch(click.ParamType):  # type: ignore[type-arg]
    """The name of an architecture, which may be that of a function in a Python file."""

    name = "text"

    def files(self, value: str) -> list[Path]:
        """See InputFile."""
        from subpc.model_files import arch_files

        return arch_files(value)


class OutputFile(click.Path):
    """A file that a command writes; `noun` is what errors call it."""

    noun = ""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


class OutputDatabase(OutputFile):
    """A tuning database, which is appended to."""

    noun = "the database "


class OutputFolder(click.Path):
    """A folder that a command writes files of its own into."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)


class FileCommand(click.Command):
    """A command that starts only if its inputs are there, none of its outputs is one of them, and
    all of these can be written."""

    def invoke(self, ctx: click.Context) -> Any:
        """See click.Command."""
        given = [
            (param.type, value)
            for param in self.params
            for value in _values(ctx.params.get(param.name or ""))
        ]
        outputs = [(kind.noun, value) for kind, value in given if isinstance(kind, OutputFile)]
        if outputs:
            inputs = [
                file
                for kind, value in given
                if isinstance(kind, InputFile | InputText | InputArch)
                for file in kind.files(value)
            ]
            try:
                check_outputs([value for _, value in outputs], inputs)
            except ConfigError as error:
                raise ConfigError(
                    str(error).replace("cannot write ", f"cannot write {outputs[0][0]}", 1)
                ) from error
        for kind, value in given:
            if isinstance(kind, InputFile | InputText):
                kind.check(value)
        return super().invoke(ctx)


def _missing(path: Path) -> str:
    """That `path` is not there, before anything large is imported; what else is wrong with it, the
    command says."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        target = f" is a link to {os.readlink(path)}, which" if os.path.islink(path) else ""
        return f"{path}{target} does not exist"
    except (OSError, ValueError):
        return ""
    return ""


def _values(value: Any) -> tuple[Any, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)


INPUT, DATA, LIBRARY, MODEL = InputFile(), InputData(), InputLibrary(), InputModel()
INPUT_TEXT, ARCH = InputText(), InputArch()
TUNING = InputText("auto", "off", path="a database that `subpc tune` wrote")
IMAGES, COUNT_OR_IMAGES = (
    InputText("fashion-mnist", "fashion-mnist:", path="a folder of images", count=count)
    for count in (False, True)
)
INPUTS = InputText(
    "fashion-mnist", "fashion-mnist:", path="a folder of images, or a .npy or .npz file of inputs"
)
TRAINING_IMAGES = InputText("fashion-mnist", "fashion-mnist:", "imagefolder:")
OUTPUT, DATABASE, OUTPUT_FOLDER = OutputFile(), OutputDatabase(), OutputFolder()


class ShapeType(click.ParamType):  # type: ignore[type-arg]
    """`1,3,224,224` -> (1, 3, 224, 224); with the input's name and element type where they are
    given: `mask=1,224,224:bool`."""

    name = "[NAME=]N,C,H,W[:TYPE]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        from subpc.frontend.input_shapes import parse_shape

        if isinstance(value, tuple):
            return value
        try:
            return parse_shape(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TripleType(click.ParamType):  # type: ignore[type-arg]
    """`0.485,0.456,0.406` -> three floats; one number stands for all three."""

    name = "R,G,B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        if isinstance(value, tuple):
            return value[0], value[1], value[2]
        try:
            numbers = [float(p) for p in str(value).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 3):
            self.fail(
                f"{value!r} is not one number or three with commas between, as in"
                " 0.485,0.456,0.406",
                param,
                ctx,
            )
        return (
            (numbers[0], numbers[0], numbers[0])
            if len(numbers) == 1
            else (numbers[0], numbers[1], numbers[2])
        )


SHAPE = ShapeType()
TRIPLE = TripleType()

threads_option = click.option(
    "--threads",
    type=int,
    default=None,
    help="Threads to use. [default: the CPUs this process may use]",
)
part_option = click.option(
    "--part",
    metavar="PATH",
    help="Only this submodule, such as backbone; or several in a row: backbone,rpn.head.",
)
trust_pickle_option = click.option(
    "--trust-pickle",
    is_flag=True,
    help="Load pickled modules. They can run any code: only for files that you made.",
)
library_shape_option = click.option(
    "--shape",
    "shapes",
    type=SHAPE,
    multiple=True,
    help="Input shape, for a library that has several.",
)
mean_option = click.option(
    "--mean",
    type=TRIPLE,
    default="0.485,0.456,0.406",
    show_default=True,
    help="Of images: subtracted from pixels / 255.",
)
std_option = click.option(
    "--std",
    type=TRIPLE,
    default="0.229,0.224,0.225",
    show_default=True,
    help="Divides the difference.",
)
interpolation_option = click.option(
    "--interpolation",
    type=click.Choice(["bilinear", "bicubic"]),
    default="bilinear",
    show_default=True,
    help="How images are scaled.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=FLOATS,
    show_default=True,
    help="What layers compute in; int8 multiplies bytes; auto: each what is faster, int8 only where"
    " that costs no accuracy.",
)
calibration_option = click.option(
    "--calibration",
    type=INPUTS,
    metavar="FOLDER|FILE.npy|FILE.npz",
    help="Up to 256 unlabelled images for int8, auto, or inputs by name. [default: none needed]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
)
