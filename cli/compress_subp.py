"""`subpc compress subp`: train a 1xN block-sparse network, from scratch or from weights, with its
baselines in the same frame."""

from pathlib import Path
from typing import Any

import click

from subpc.cli.key_value import KeyValue
from subpc.cli.options import (
    ARCH,
    MODEL,
    OUTPUT,
    TRAINING_IMAGES,
    FileCommand,
    json_option,
)
from subpc.cli.printing import show, show_json
from subpc.files import described
from subpc.training.process_group import leads

METHODS = ("subp", "dense", "oneshot", "oneshot-layerwise")
# torchrun takes --start for a short form of its own options; hence the second name.
_START = "Begin of the pruning: an epoch, or a fraction of all epochs; --begin under torchrun."
_DENSE = "Layers to leave dense: name, pattern, size as 1x1, or paper; repeatable. [default: paper]"
_MASKED = "--latent-scores"


@click.command("subp", cls=FileCommand)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    required=True,
    help="The compressed model file (.pt or .safetensors).",
)
@click.option(
    "--arch",
    type=ARCH,
    required=True,
    help="torchvision:resnet18, subpc:resnet20, timm:NAME or package.module:function.",
)
@click.option(
    "--arch-option",
    "arch_options",
    type=KeyValue(),
    multiple=True,
    help="Option of the architecture, as width=32; repeatable.",
)
@click.option(
    "--data",
    type=TRAINING_IMAGES,
    required=True,
    help="fashion-mnist[:FOLDER], or imagefolder:FOLDER with a folder for each class.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="subp",
    show_default=True,
    help="SUBP, or a baseline.",
)
@click.option("--epochs", type=int, default=200, show_default=True)
@click.option(
    "--sparsity",
    type=float,
    default=0.75,
    show_default=True,
    help="Share of blocks that are pruned in the end.",
)
@click.option(
    "--block",
    "n",
    type=int,
    default=16,
    show_default=True,
    help="Filters in a block: 4, 8, 16 or 32.",
)
@click.option(
    "--criterion",
    type=click.Choice(["bpar", "l1", "l2"]),
    default="bpar",
    show_default=True,
    help="What ranks the blocks.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cubic", "linear", "cos", "exp"]),
    default="cubic",
    show_default=True,
)
@click.option(
    "--start", "--begin", "start", type=float, default=0.05, show_default=True, help=_START
)
@click.option(
    "--end",
    type=float,
    default=0.9,
    show_default=True,
    help="End of the pruning, likewise; less than the epochs.",
)
@click.option(
    "--alpha", type=float, default=1.0, show_default=True, help="Weight of the redundancy in bpar."
)
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    help="Of the draw that brings pruned blocks back.",
)
@click.option(
    "--soft-decay",
    type=float,
    default=2e-4,
    show_default=True,
    help="Extra weight decay of masked weights.",
)
@click.option("--keep-dense", multiple=True, metavar="WHICH", help=_DENSE)
@click.option(_MASKED, is_flag=True, help="Rank by the weights behind the masks.")
@click.option(
    "--mask-updates",
    type=int,
    default=1,
    show_default=True,
    help="Mask updates an epoch; more for short trainings.",
)
@click.option(
    "--prune-epoch",
    type=int,
    help="When one-shot methods prune. [default: half way; 0 with --init]",
)
@click.option(
    "--finetune-rate",
    type=float,
    help="Learning rate that one-shot methods start again from. [default: one cosine]",
)
@click.option(
    "--rearrange", is_flag=True, help="Sort the filters of --init by norm before one-shot pruning."
)
@click.option("--init", type=MODEL, help="Start from these weights instead of random ones.")
@click.option(
    "--teacher",
    type=MODEL,
    help="Learn from this trained network, too: any model file.",
)
@click.option(
    "--teacher-arch",
    type=ARCH,
    help="Of a teacher that has weights alone. [default: --arch with its options]",
)
@click.option(
    "--teacher-share",
    type=float,
    default=0.9,
    show_default=True,
    help="Share of the loss that is the teacher's.",
)
@click.option(
    "--teacher-temperature",
    type=float,
    default=4.0,
    show_default=True,
    help="Scores are divided by it to compare them with the teacher's.",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of an unfinished training.")
@click.option(
    "--batch",
    type=int,
    default=128,
    show_default=True,
    help="Images a step, all processes together.",
)
@click.option(
    "--rate",
    type=float,
    default=0.1,
    show_default=True,
    help="First learning rate; it falls to 0 as a cosine.",
)
@click.option("--momentum", type=float, default=0.9, show_default=True)
@click.option(
    "--weight-decay",
    type=float,
    default=1e-4,
    show_default=True,
    help="Not of biases and batch norms.",
)
@click.option("--label-smoothing", type=float, default=0.1, show_default=True)
@click.option("--amp", is_flag=True, help="bfloat16 autocast.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--size", type=int, default=224, show_default=True, help="Side of images from folders."
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=2,
    show_default=True,
    help="Processes that read images.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:0.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of PyTorch on the CPU. [default: its own choice]",
)
@click.option(
    "--half",
    is_flag=True,
    help="Store the weights as float16: half the bytes, rounded to three digits.",
)
@click.option("--export-onnx", "onnx", type=OUTPUT, help="Write the trained network as ONNX too.")
@click.option(
    "--export-state-dict",
    "state_dict",
    type=OUTPUT,
    help="Write plain weights (.pt, .safetensors) too.",
)
@json_option
def command(as_json: bool, threads: int | None, **options: Any) -> None:
    """Train a network whose 1xN blocks are pruned uniformly, ready for `subpc compile`.

    Beside OUTPUT come a log (.csv), a report (.json) and a plot (.png). Killed at any moment, the
    same command with --resume goes on from the last epoch to the same result. Under torchrun the
    batch is shared by all processes.

    \b
    Examples:
      subpc compress subp --arch subpc:resnet20 --data fashion-mnist --epochs 10 \\
        --mask-updates 10 -o sparse.pt
      subpc compress subp --arch resnet18 --data imagefolder:images --epochs 200 -o sparse.pt
      subpc compile sparse.pt -o sparse.so
    """
    from subpc.cli.training_progress import training_progress

    with training_progress(options["epochs"], quiet=as_json) as (on_epoch, on_step):
        import torch

        from subpc.training.train_files import train_files

        if threads is not None:
            torch.set_num_threads(threads)
        job, config = _split(options)
        report = train_files(job, config, on_epoch=on_epoch, on_step=on_step)
    if leads():
        _tell(report, job.output, as_json)


def _split(options: dict[str, Any]) -> tuple[Any, Any]:
    """The Job and the TrainConfig that the options describe."""
    from dataclasses import fields

    from subpc.algorithms.subp.config import SubpConfig
    from subpc.algorithms.subp.train_config import TrainConfig
    from subpc.training.job import Job

    options["arch_options"] = dict(options["arch_options"])
    if not options["keep_dense"]:
        del options["keep_dense"]
    if (
        options["init"] is not None
        and options["prune_epoch"] is None
        and options["method"].startswith("oneshot")
    ):
        options["prune_epoch"] = 0

    def chosen(kind: Any) -> dict[str, Any]:
        return {field.name: options[field.name] for field in fields(kind) if field.name in options}

    return Job(**chosen(Job)), TrainConfig(
        subp=SubpConfig(**chosen(SubpConfig)), **chosen(TrainConfig)
    )


def _tell(report: dict[str, Any], output: Path, as_json: bool) -> None:
    if as_json:
        show_json({**report, "output": str(output)})
        return
    dense = report["left_dense"]
    show(
        f"top-1 {report['top1']:.2f} % with {report['sparsity']:.1%} of the blocks pruned"
        f" ({report['pattern']})"
    )
    if dense:
        show(
            f"{len(report['pruned'])} convolutions pruned, {len(dense)} dense: "
            + ", ".join(f"{k} ({v})" for k, v in dense.items())
        )
    for name, reason in list(report["skipped"].items())[:5]:
        show(f"skipped {name}: {reason}")
    if len(report["skipped"]) > 5:
        show(f"skipped {len(report['skipped'])} images in all; the report names them")
    show(
        f"wrote {described(output)} ({output.stat().st_size / 1e6:.2f} MB) and, beside it, .csv,"
        " .json and .png"
    )
