"""The one way in: a module, an exported program or a file becomes Relax functions, one per input
shape."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from subpc.algorithms.numerics.quantizers import Quantized
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.default_shape import assumed, assumed_batch
from subpc.frontend.example_inputs import example_for, given_examples, model_inputs, shapes_of
from subpc.frontend.files.load_file import load_torch_file
from subpc.frontend.from_onnx.network import OnnxFile
from subpc.frontend.from_onnx.to_relax import import_onnx
from subpc.frontend.from_torch.export import inference_copy
from subpc.frontend.from_torch.network import exported_network, static_shapes
from subpc.frontend.from_torch.to_relax import import_exported
from subpc.frontend.imported_model import ImportedModel
from subpc.frontend.input_shapes import InputShape, as_shapes, group_shapes, is_open, shapes_for_one
from subpc.frontend.one_at_a_time import capturing
from subpc.frontend.parts import check_no_part, suggested_part, take_part
from subpc.frontend.weight_codes import WeightCodes, packed_codes
from subpc.model_files import check_file

__all__ = ["ImportedModel", "import_model"]

Source = nn.Module | ExportedProgram | str | Path
Shapes = Sequence[tuple[int, ...]] | Mapping[str, tuple[int, ...]]
_Given = list[tuple[int, ...]] | None


def import_model(
    source: Source,
    *,
    shapes: Shapes | None = None,
    example_inputs: Any = None,
    arch: str | None = None,
    trust_pickle: bool = False,
    part: str | None = None,
) -> list[ImportedModel]:
    """Import `source` once for each set of input shapes; files may need `arch`, and are never
    unpickled without `trust_pickle`.

    shapes: see group_shapes for those of several inputs; example_inputs: see given_examples; part:
    see take_part.
    """
    given = as_shapes(shapes)
    if isinstance(source, str | Path):
        return _import_file(Path(source), given, example_inputs, arch, trust_pickle, part)
    return _import_torch(source if part is None else take_part(source, part), given, example_inputs)


def _import_file(
    path: Path,
    shapes: _Given,
    example_inputs: Any,
    arch: str | None,
    trust_pickle: bool,
    part: str | None,
) -> list[ImportedModel]:
    check_file(path)
    if path.suffix == ".onnx":
        check_no_part(path, part)
        file = OnnxFile(path)
        if example_inputs is None and not shapes and is_open(file.inputs):
            model = import_onnx(file.network(shapes_for_one(file.inputs)))
            return [model.with_notes(assumed_batch(model.input_shapes))]
        return [
            import_onnx(file.network(group)) for group in _onnx_shapes(file, shapes, example_inputs)
        ]
    loaded = load_torch_file(path, arch=arch, trust_pickle=trust_pickle, part=part)
    notes = loaded.notes
    if (
        not shapes
        and example_inputs is None
        and (shape := loaded.input_shape or loaded.assumed_shape)
    ):
        shapes = [shape]
        notes = notes if loaded.input_shape else (assumed(loaded.arch, shape), *notes)
    imported = _import_torch(loaded.model, shapes, example_inputs)
    return [
        replace(
            model.with_notes(*notes),
            facts=loaded.facts,
            packed=loaded.packed,
            codes=model.codes | _codes_of(model, loaded.packed),
        )
        for model in imported
    ]


def _codes_of(model: ImportedModel, packed: Mapping[str, Quantized]) -> dict[str, WeightCodes]:
    """By parameter: the codes that a compressed file has of layers' weights."""
    layers = {name: text.removesuffix(".weight") for name, text in model.param_names.items()}
    return {name: packed_codes(packed[layer]) for name, layer in layers.items() if layer in packed}


@capturing()
def _import_torch(model: Any, shapes: _Given, example_inputs: Any) -> list[ImportedModel]:
    if not isinstance(model, nn.Module | ExportedProgram):
        raise ConfigError(
            "A model is a torch.nn.Module, an ExportedProgram or a path, not a"
            f" {type(model).__name__}."
        )
    if isinstance(model, ExportedProgram) and not shapes and example_inputs is None:
        if not is_open(inputs := model_inputs(model)):
            return [import_exported(exported_network(model))]
        one = shapes_for_one(inputs)
        network = exported_network(model, tuple(map(example_for, one)))
        return [import_exported(network).with_notes(assumed_batch(one))]
    sets = _inputs(model, shapes, example_inputs)
    if isinstance(model, ExportedProgram) and static_shapes(model) is not None:
        networks = [exported_network(model, inputs) for inputs in sets]
        return [import_exported(networks[0])]  # the program itself, which fits each of them
    return [import_exported(exported_network(model, inputs)) for inputs in sets]


def _inputs(
    model: nn.Module | ExportedProgram, shapes: _Given, example_inputs: Any
) -> list[tuple[Any, ...]]:
    """What to trace with, once for each set of shapes."""
    if example_inputs is not None:
        return [_given(model, example_inputs)]
    if not shapes:
        raise ConfigError(
            "The model does not say its input shape. Pass one, such as --shape 1,3,224,224"
            " (example_inputs in Python)."
        )
    return [tuple(map(example_for, group)) for group in group_shapes(shapes, model_inputs(model))]


def _given(model: nn.Module | ExportedProgram, example_inputs: Any) -> tuple[Any, ...]:
    try:
        return given_examples(example_inputs, model_inputs(model))
    except UnsupportedModelError as error:  # a list of images, as detectors take it
        advice = (
            suggested_part(inference_copy(model)[0], tuple(example_inputs))
            if isinstance(model, nn.Module)
            else ""
        )
        raise UnsupportedModelError(
            f"{str(error).splitlines()[0]}\n{advice}" if advice else str(error)
        ) from error


def _onnx_shapes(
    file: OnnxFile, shapes: _Given, example_inputs: Any
) -> list[list[tuple[int, ...]]]:
    """Per compiled function, the shapes of its inputs; empty where the model's own shapes serve."""
    if example_inputs is None and not shapes:
        return [[]]
    inputs = file.inputs
    groups: list[tuple[InputShape, ...]] = []
    if example_inputs is not None:
        groups = group_shapes(shapes_of(given_examples(example_inputs, inputs)), inputs)
    return [list(group) for group in groups or group_shapes(shapes or [], inputs)]
