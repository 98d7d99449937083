"""The steps of a compression: run the method, measure what it did, search for its strength,
describe the file."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from subpc.algorithms.registry import method_of
from subpc.images.unlabelled import Given
from subpc.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from subpc.algorithms.config import Config
    from subpc.algorithms.file_format.compressed_file import CompressedFile
    from subpc.algorithms.method import Compressed
    from subpc.algorithms.report import DataFreeReport
    from subpc.frontend.load_network import Network

Shape = tuple[int, ...]
Evaluate = Callable[["nn.Module"], float]


def run_method(
    model: "nn.Module", config: "Config", given: Given, shape: Shape | None, progress: Progress
) -> "Compressed":
    """The method that belongs to `config`, with the images that are there; ConfigError for a
    configuration of another kind.

    shape: (n, c, h, w) of the network's input, None where it is not known.
    """
    method = method_of(config)
    result = method.run(model, config, progress, images=given.images, input_shape=shape)
    if given.images is None:
        return result
    return replace(result, report=replace(result.report, inputs=given.label))


def measured(
    before: "nn.Module", result: "Compressed", config: "Config", shape: Shape | None
) -> "DataFreeReport":
    """The report with the bytes that a file takes, each layer's signal-to-noise ratio, and what a
    reader should know."""
    from subpc.algorithms.file_format.compressed_file import content_of, stored_bytes
    from subpc.algorithms.network.checked_copy import checked_copy
    from subpc.algorithms.network.layer_noise import layer_snr

    sizes = stored_bytes(content_of(_file(result)))
    names = [layer.name for layer in result.report.layers]
    ratios = (
        layer_snr(checked_copy(before), result.model, names, shape) if shape is not None else {}
    )
    for layer in result.report.layers:
        layer.bytes, layer.snr = sizes.get(layer.name, 0), ratios.get(layer.name)
    return replace(
        result.report,
        bytes=sum(sizes.values()),
        notes=(
            *result.report.notes,
            *_remarks(before, config),
            *_without_effect(config, result.report),
        ),
    )


def _remarks(before: "nn.Module", config: "Config") -> list[str]:
    """What a network without batch norms still allows."""
    from torch import nn

    if any(isinstance(m, nn.BatchNorm2d) for m in before.modules()):
        return []
    left = method_of(config).without_batch_norms
    return [f"the network has no batch norms (exporters fold them into the convolutions): {left}"]


def _without_effect(config: "Config", report: "DataFreeReport") -> list[str]:
    """Settings that changed nothing in this network: those that a search would try, and those that
    are not at their defaults. Zero asks for no effect."""
    method, values, defaults = method_of(config), config.to_dict(), type(config)().to_dict()
    strengths = {key for rungs in method.ladders(frozenset()) for rung in rungs for key in rung}
    return [
        f"{setting} {values[setting]} has no effect: {why}"
        for setting, why in method.idle(config, report).items()
        if values[setting] and (setting in strengths or values[setting] != defaults[setting])
    ]


def as_file(
    result: "Compressed", report: "DataFreeReport", config: "Config", network: "Network"
) -> "CompressedFile":
    """What is written."""
    facts: dict[str, Any] = {
        "arch": network.arch,
        "arch_options": network.arch_options,
        "graph": replace(network, model=result.model).graph,
        "input_shape": network.input_shape,
    }
    settings = {"method": report.method, **config.to_dict()}
    return replace(_file(result), **facts, config=settings, report=plain(report.lean()))


def _file(result: "Compressed") -> "CompressedFile":
    """Weights, codes and blocks alone."""
    from subpc.algorithms.file_format.compressed_file import CompressedFile

    return CompressedFile(
        arch="", state_dict=result.model.state_dict(), packed=result.codes, blocks=result.blocks
    )


def plain(value: Any) -> Any:
    """Tuples as lists: what a file may hold."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def strongest(
    model: "nn.Module",
    config: "Config",
    given: Given,
    shape: Shape | None,
    evaluate: Evaluate | None,
    max_drop: float | None,
    fixed: frozenset[str],
    progress: Progress,
) -> "tuple[Config, dict[str, Any]]":
    """The strongest setting of `config` whose loss is allowed, and how it was found; `config`
    itself where nothing is evaluated."""
    if evaluate is None or max_drop is None:
        return config, {}
    from subpc.algorithms.network.checked_copy import checked_copy
    from subpc.compression.strength_search import Attempt, StrengthSearch

    progress("accuracy of the network as it is", 0, 1)
    reference = evaluate(checked_copy(model))

    def attempt(tried: "Config", text: str, before: int) -> Attempt:
        result = run_method(
            model,
            tried,
            given,
            shape,
            lambda stage, done, total: progress(
                f"trial {before + 1}, {text}: {stage}", done, total
            ),
        )
        progress(f"trial {before + 1}, {text}: accuracy", 0, 1)
        report = measured(model, result, tried, shape)
        return Attempt(accuracy=evaluate(result.model), bytes=report.bytes, layers=report.layers)

    search = StrengthSearch(config, attempt, reference=reference, max_drop=max_drop, fixed=fixed)
    chosen, outcome = search.run()
    return chosen, {
        "max_drop": max_drop,
        "accuracy_before": reference,
        "accuracy_after": outcome.accuracy,
        "setting": search.setting,
        "left_alone": list(search.left_alone),
        "trials": [asdict(step) for step in search.steps],
    }
