"""`subpc compile`: a model file in, one library out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subpc.cli.options import (
    ARCH,
    MODEL,
    OUTPUT,
    OUTPUT_FOLDER,
    SHAPE,
    TUNING,
    FileCommand,
    calibration_option,
    interpolation_option,
    json_option,
    mean_option,
    part_option,
    precision_option,
    std_option,
    threads_option,
    trust_pickle_option,
)
from subpc.cli.printing import show, show_json
from subpc.cli.tables import layer_table
from subpc.errors import CompileError, TargetError
from subpc.files import check_outputs, described
from subpc.images.prepare import Preparation
from subpc.library.report import MIXED
from subpc.model_files import check_file
from subpc.passes.sparse_modes import SPARSE_MODES

if TYPE_CHECKING:
    from subpc.library.report import CompileReport


@click.command("compile", cls=FileCommand)
@click.argument("model", type=MODEL)
@click.option(
    "-o", "--output", type=OUTPUT, help="The library to write. [default: MODEL's name with .so]"
)
@click.option(
    "--arch",
    type=ARCH,
    help=(
        "Architecture of a state dict: torchvision:resnet50, timm:NAME or package.module:function."
    ),
)
@click.option(
    "--shape",
    "shapes",
    type=SHAPE,
    multiple=True,
    help="Input shape; repeat for several inputs or sizes.",
)
@part_option
@click.option(
    "--target", default="llvm -mcpu=native", show_default=True, help="CPU to compile for."
)
@precision_option
@calibration_option
@mean_option
@std_option
@interpolation_option
@click.option(
    "--sparse",
    type=click.Choice(SPARSE_MODES),
    default="auto",
    show_default=True,
    help="Block-sparse kernels: where faster, nowhere, wherever a pattern is.",
)
@click.option(
    "--tuning",
    type=TUNING,
    default="auto",
    show_default=True,
    metavar="FILE|auto|off",
    help="Database that `subpc tune` wrote.",
)
@click.option(
    "--tuning-any-cpu",
    is_flag=True,
    help="Use it although it was made on another CPU, target or number of threads.",
)
@click.option(
    "--require-sparse",
    is_flag=True,
    help="Fail, and write nothing, if no layer gets a sparse kernel.",
)
@trust_pickle_option
@click.option("--debug-dump", type=OUTPUT_FOLDER, help="Write the program after each phase here.")
@click.option("-v", "--verbose", is_flag=True, help="Show the decision for every layer.")
@threads_option
@json_option
def command(
    model: Path,
    output: Path | None,
    target: str,
    require_sparse: bool,
    verbose: bool,
    as_json: bool,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    interpolation: str,
    **rest: Any,
) -> None:
    """Compile MODEL (.pt, .pt2, .pth, .safetensors, .onnx) into one native library.

    \b
    Examples:
      subpc compile small.pt -o model.so
      subpc compile weights.pth --arch torchvision:resnet50 --shape 1,3,224,224 \\
        --target "llvm -mcpu=skylake-avx512"
      subpc compile small.pt --precision int8 --calibration photographs -o small.so
    """
    from subpc.cli.progress import progress_line

    output = output or Path(model.stem + ".so")
    check_file(model)
    check_outputs([output], MODEL.files(model))
    _check_target(target)
    dump = {"debug_dump": rest.pop("debug_dump")}
    options = {
        **rest,
        "preparation": Preparation(mean=mean, std=std, interpolation=interpolation),
        "shapes": list(rest["shapes"]) or None,
        **(dump if dump["debug_dump"] else {}),
    }
    accept = _need_sparse if require_sparse else None
    with progress_line(quiet=as_json) as progress:
        from subpc.compiler.compile_model import compile_file

        report = compile_file(
            model, output, accept=accept, target=target, progress=progress, **options
        )
    _print(report, output, verbose, as_json)


def _need_sparse(report: "CompileReport") -> None:
    if not any(layer.sparse for layer in report.layers):
        raise CompileError(
            f"no layer got a sparse kernel ({report.summary}); nothing was written because of"
            " --require-sparse"
        )


def _check_target(target: str) -> None:
    from subpc.machine.target import parse_target

    try:
        parse_target(target)
    except TargetError as error:
        raise click.BadParameter(str(error), param_hint="--target") from error


def _print(report: "CompileReport", output: Path, verbose: bool, as_json: bool) -> None:
    from subpc.frontend.architectures.default_shape import ASSUMED
    from subpc.images.unlabelled import SKIPPED

    if as_json:
        show_json({**report.to_dict(), "output": str(output), "bytes": output.stat().st_size})
        return
    show(report.headline, report.summary)
    if verbose:
        show(layer_table(report))
    needed = (ASSUMED, SKIPPED, f"{MIXED}: ")
    notes = [note for note in report.metadata.notes if verbose or note.startswith(needed)]
    show(*(f"warning: {w}" for w in report.metadata.warnings), *(f"note: {note}" for note in notes))
    show(f"wrote {described(output)} ({output.stat().st_size / 1e6:.1f} MB)")
