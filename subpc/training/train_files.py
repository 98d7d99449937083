"""`subpc compress subp` as a function: data, network, training, and the files that come of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from subpc.errors import ConfigError
from subpc.files import check_outputs, replacing
from subpc.scratch import scratch_folder
from subpc.text import first_line
from subpc.training.data import Data, read_data, with_channels
from subpc.training.job import Job
from subpc.training.report import write_csv, write_json, write_plot

if TYPE_CHECKING:
    from torch import nn

    from subpc.algorithms.subp.train_config import EpochInfo, History, TrainConfig

    OnEpoch: TypeAlias = Callable[[tuple[EpochInfo, ...]], None] | None
OnStep: TypeAlias = Callable[[int, int, int, float], None] | None


def train_files(
    job: Job, config: "TrainConfig", *, on_epoch: "OnEpoch" = None, on_step: OnStep = None
) -> dict[str, Any]:
    """Train, write the model and, beside it, `.csv`, `.json` and `.png`; returns the report.

    Under torchrun every process calls this; the first one writes. Raises SubpcError, ConfigError or
    ModelFileError.
    """
    from subpc.algorithms.subp.trainer import train
    from subpc.training.process_group import process_group

    _check_places(job)
    with process_group(job.device) as (team, device):
        data = read_data(job)
        model, options = build_network(job, config, data)

        def log(epochs: "tuple[EpochInfo, ...]") -> None:
            write_csv(job.output.with_suffix(".csv"), epochs)
            if on_epoch is not None:
                on_epoch(epochs)

        shown = with_channels(data, _input_channels(model))
        history = train(
            model,
            shown.train,
            shown.test,
            config,
            teacher=_teacher(job, options),
            checkpoint=job.checkpoint,
            device=device,
            on_epoch=log,
            on_step=on_step,
        )
        if job.half:
            _round_weights(model)
        report = make_report(job, config, shown, model, history)
        if team.leads:
            _write(job, config, shown, model, options, report, history)
        team.wait()
    return report


def build_network(
    job: Job, config: "TrainConfig", data: Data
) -> "tuple[nn.Module, dict[str, Any]]":
    """The network for these classes, with the weights of `job.init` or seeded ones, and its
    options."""
    import torch

    from subpc.frontend.architectures.build import build_arch
    from subpc.frontend.files.load_file import read_weights
    from subpc.frontend.files.state_dict import start_from

    source = job.arch.rpartition(":")[0]
    options: dict[str, Any] = (
        {"num_classes": len(data.classes)} if source in ("", "torchvision", "timm", "subpc") else {}
    )
    if source == "subpc":
        options["in_channels"] = data.shape[0]
    options |= job.arch_options
    torch.manual_seed(config.seed)
    model = build_arch(job.arch, **options)
    if job.init is not None:
        start_from(model, read_weights(job.init), job.init.name)
        if config.rearrange:
            from subpc.algorithms.subp.rearrange import rearrange

            rearrange(model)
    _check_scores(model, data)
    return model, options


def _teacher(job: Job, options: dict[str, Any]) -> "nn.Module | None":
    """The network in `job.teacher`; weights that do not say of which network are of
    `job.teacher_arch`, else of the one that is trained."""
    if job.teacher is None:
        return None
    from subpc.frontend.files.load_file import read_weights
    from subpc.frontend.files.state_dict import load_into_arch
    from subpc.frontend.load_network import load_network

    try:
        return load_network(job.teacher, arch=job.teacher_arch).model
    except ConfigError:
        if job.teacher_arch is not None:
            raise
    weights = read_weights(job.teacher)
    return load_into_arch(job.arch, weights, job.teacher.name, **options)[0]


def _round_weights(model: "nn.Module") -> None:
    """What float16 leaves of the weights of two or more dimensions, so that the report is about the
    network in the file."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.half())


def _check_scores(model: "nn.Module", data: Data) -> None:
    """ConfigError unless the network takes the images and gives a score a class."""
    import torch

    with torch.no_grad():
        try:
            scores = model.eval()(torch.zeros(1, _input_channels(model), *data.shape[1:]))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"The network does not take images of {data.shape[1]}x{data.shape[2]}:"
                f" {first_line(error, 120)}."
            ) from error
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (1, len(data.classes)):
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ConfigError(
            f"The network gives {got} for one image; (1, {len(data.classes)}), a score for each"
            " class, is accepted."
        )


def _input_channels(model: "nn.Module") -> int:
    from torch import nn

    return next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 1)


def _check_places(job: Job) -> None:
    if job.output.suffix not in (".pt", ".safetensors"):
        raise ConfigError(
            f"the output is {job.output.name}; a name that ends with .pt or .safetensors is"
            " accepted."
        )
    beside = [job.output.with_suffix(suffix) for suffix in (".csv", ".json", ".png")]
    check_outputs(
        [job.output, *beside, job.checkpoint, job.onnx, job.state_dict],
        [job.init, job.teacher, job.data.partition(":")[2] or None],
    )
    if job.checkpoint.exists() and not job.resume:
        raise ConfigError(
            f"{job.checkpoint} is there from an unfinished training. Pass --resume to go on with"
            " it, or remove it."
        )


def make_report(
    job: Job, config: "TrainConfig", data: Data, model: "nn.Module", history: "History"
) -> dict[str, Any]:
    """What was trained and what came of it, as JSON values."""
    from subpc.algorithms.subp.trainer import accuracy

    last = history.epochs[-1]
    pattern = (
        "dense"
        if not history.pruned
        else (
            f"1x{config.subp.n}"
            f" {'layer-wise' if config.method.endswith('layerwise') else 'uniform'}"
        )
    )
    return {
        "arch": job.arch,
        "data": job.data.partition(":")[0],
        "pattern": pattern,
        "top1": accuracy(model, data.test),
        "sparsity": last.sparsity,
        "classes": list(data.classes),
        "config": config.to_dict(),
        **history.to_dict(),
    }


def _write(
    job: Job,
    config: "TrainConfig",
    data: Data,
    model: "nn.Module",
    options: dict[str, Any],
    report: dict[str, Any],
    history: "History",
) -> None:
    import torch

    from subpc.algorithms.file_format.compressed_file import (
        CompressedFile,
        save_atomic,
        save_compressed,
    )
    from subpc.frontend.from_torch.to_onnx_file import export_onnx

    shape, epochs = (1, *data.shape), history.epochs
    blocks = dict.fromkeys(report["pruned"], config.subp.n)
    short = {
        key: report[key]
        for key in ("data", "pattern", "top1", "sparsity", "classes", "pruned", "left_dense")
    }
    file = CompressedFile(
        arch=job.arch,
        arch_options=options,
        state_dict=model.state_dict(),
        config=config.to_dict(),
        report=short,
        input_shape=shape,
        blocks=blocks,
        half=job.half,
    )
    save_compressed(job.output, file)
    write_json(job.output.with_suffix(".json"), report)
    write_plot(
        job.output.with_suffix(".png"), epochs, f"{job.arch}, {config.method}, {report['pattern']}"
    )
    if job.onnx is not None:
        with scratch_folder("export") as folder, replacing(job.onnx) as target:
            export_onnx(model.eval(), (torch.zeros(shape),), folder / "model.onnx")
            target.write((folder / "model.onnx").read_bytes())
    if job.state_dict is not None:
        save_atomic(job.state_dict, dict(model.state_dict()))
    job.checkpoint.unlink(missing_ok=True)
