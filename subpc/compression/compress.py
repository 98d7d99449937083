"""Compress networks: modules in memory, and model files into the compressed format that `compile`
takes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from subpc.compression.distillation import checkpoint_of, distilled
from subpc.compression.extras import (
    SYNTHETIC_STEPS,
    Extras,
    enough_of,
    evaluation_of,
    generated,
    given_images,
    images_of_the_lesson,
    measures_on_the_lesson,
    ready,
    working_shape_of,
)
from subpc.compression.shape import check_images, check_shape
from subpc.compression.steps import Evaluate, Shape, as_file, measured, run_method, strongest
from subpc.errors import ConfigError
from subpc.files import check_outputs
from subpc.frontend.one_at_a_time import one_at_a_time
from subpc.images.unlabelled import Given, skipped_notes
from subpc.model_files import arch_files, model_files
from subpc.progress import Progress, silent

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subpc.algorithms.config import Config
    from subpc.algorithms.distill.config import DistillConfig
    from subpc.algorithms.report import DataFreeReport

SUFFIXES = (".pt", ".safetensors")


@one_at_a_time()
def compress(
    model: "nn.Module",
    config: "Config",
    *,
    images: "torch.Tensor | None" = None,
    synthetic: int | None = None,
    input_shape: Shape | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    fixed: frozenset[str] = frozenset(),
    distill: "DistillConfig | None" = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> "tuple[nn.Module, DataFreeReport]":
    """The compressed copy of `model`, and what was done to each layer. `model` is not changed.

    Args:
        model: a network whose forward torch.fx can trace.
        config: UdfcConfig, DfmpcConfig or BlockConfig, or that of another method in
            subpc.algorithms.registry.
        images: normalised ones (p, c, h, w) that the network's statistics are measured on; then it
            is no longer data-free.
        synthetic: generate so many images from the network instead.
        input_shape: (n, c, h, w); found by trying where it is left out.
        evaluate: gives a network's accuracy in per cent; with max_drop the strongest setting is
            searched that loses at most so many points, and `fixed` names the settings that stay as
            they are in `config`.
        distill: let the copy learn from `model` at the end, on `images` or those generated.
        seed: of generated images.
        progress: called with (what is done, parts done, parts in all).

    Raises:
        SubpcError: ConfigError, ModelFileError or UnsupportedModelError.
    """
    if images is not None and synthetic is not None:
        raise ConfigError("Both images and synthetic were given; choose one.")
    if (evaluate is None) != (max_drop is None):
        raise ConfigError(
            "max_drop needs evaluate, and evaluate is called for it alone: give both."
        )
    if distill is not None and images is None and synthetic is None:
        raise ConfigError("distill needs images to learn from: pass images, or synthetic.")
    progress, images = progress or silent, check_images(images)
    wanted = input_shape or (tuple(images.shape) if images is not None else None)
    shape = check_shape(ready(model), wanted) if wanted else working_shape_of(model)
    given = Given(images=images, label=f"{len(images)} given") if images is not None else None
    if given is None:
        given = generated(model, synthetic, shape, SYNTHETIC_STEPS, seed, progress)
    config, search = strongest(model, config, given, shape, evaluate, max_drop, fixed, progress)
    result = run_method(model, config, given, shape, progress)
    if distill is not None:
        result = distilled(model, result, given, distill, progress)
    return result.model, replace(measured(model, result, config, shape), search=search)


@one_at_a_time()
def compress_file(
    path: str | Path,
    config: "Config",
    output: str | Path,
    *,
    arch: str | None = None,
    extras: Extras | None = None,
    progress: Progress | None = None,
) -> "DataFreeReport":
    """Compress the network in `path` and write the compressed model file `output`, whole or not at
    all.

    path: whatever subpc.compile takes; arch: as there, files in the compressed format name theirs.
    output: .pt or .safetensors, with bit widths and scales. Raises SubpcError: ConfigError,
    ModelFileError or UnsupportedModelError.
    """
    from subpc.algorithms.file_format.compressed_file import save_compressed
    from subpc.frontend.load_network import load_network

    path, output, extras, progress = (
        Path(path),
        Path(output),
        extras or Extras(),
        progress or silent,
    )
    _check_output(output, path, arch, extras)
    progress("reading the file", 0, 1)
    network = load_network(path, arch=arch, shape=extras.shape)
    wanted = network.input_shape
    shape = check_shape(ready(network.model), wanted) if wanted else working_shape_of(network.model)
    lesson = images_of_the_lesson(network.model, extras, shape, progress)
    given = (
        lesson
        if measures_on_the_lesson(extras)
        else given_images(network.model, extras, shape, progress)
    )
    evaluation = evaluation_of(network.model, extras, shape)
    config, search = strongest(
        network.model, config, given, shape, evaluation, extras.max_drop, extras.fixed, progress
    )
    result = run_method(network.model, config, enough_of(given), shape, progress)
    if extras.lesson is not None:
        result = distilled(
            network.model, result, lesson, extras.lesson.config, progress, checkpoint_of(output)
        )
    report = replace(measured(network.model, result, config, shape), search=search)
    skipped = (
        given.skipped | lesson.skipped | (evaluation.skipped if evaluation is not None else {})
    )
    tried = [] if network.input_shape or shape is None else [_found_by_trying(shape)]
    notes = (*network.notes, *tried, *report.notes, *_unused(extras), *skipped_notes(skipped))
    report = replace(report, notes=notes)
    progress("writing the file", 0, 1)
    save_compressed(output, as_file(result, report, config, network))
    return replace(report, file_bytes=output.stat().st_size)


def _unused(extras: Extras) -> list[str]:
    """Options that the user gave and that nothing asked for."""
    of_generated, of_read = ("synthetic_steps", "seed"), ("mean", "std", "interpolation")
    names = of_generated if extras.synthetic is None else ()
    notes = [(name, "no images are generated as --synthetic asks") for name in names]
    if extras.calibration is None and extras.evaluation is None:
        notes += [(name, "no images are read") for name in of_read]
    return [
        f"--{name.replace('_', '-')} has no effect: {why}"
        for name, why in notes
        if name in extras.fixed
    ]


def _found_by_trying(shape: Shape) -> str:
    return (
        f"the network runs on input {','.join(map(str, shape))}, which was found by trying; pass"
        " --shape for the one that it is for"
    )


def _check_output(output: Path, model: Path, arch: str | None, extras: Extras) -> None:
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"the output is {output.name}; a name that ends with .pt or .safetensors is accepted."
        )
    folders = [
        name
        for text in (
            extras.calibration,
            extras.evaluation,
            extras.lesson.source if extras.lesson is not None else None,
        )
        if text
        for name in (text, text.partition(":")[2])
        if name
    ]
    beside = [checkpoint_of(output)] if extras.lesson is not None else []
    check_outputs([output, *beside], [*model_files(model), *arch_files(arch), *folders])
