"""The one way in: a module, an exported program or a file becomes Relax functions, one per input shape."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.default_shape import assumed, assumed_batch
from subpc.frontend.example_inputs import example_for, given_examples, model_inputs, shapes_of
from subpc.frontend.files.load_file import load_torch_file
from subpc.frontend.files.pt2.guards import check_guards
from subpc.frontend.from_onnx.model.inputs import onnx_inputs
from subpc.frontend.from_onnx.to_relax import import_onnx
from subpc.frontend.from_torch.to_relax import export, import_exported, import_module, inference_copy
from subpc.frontend.from_torch.torchscript import NOTE, export_script, input_names
from subpc.frontend.imported_model import ImportedModel
from subpc.frontend.input_shapes import Input, InputShape, as_shapes, group_shapes, shapes_for_one
from subpc.frontend.one_at_a_time import capturing
from subpc.frontend.parts import Part, check_no_part, suggested_part, take_part
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
    """Import `source` once for each set of input shapes; files may need `arch`, and are never unpickled without `trust_pickle`.

    shapes: see group_shapes for those of several inputs; example_inputs: see given_examples; part: see take_part.
    """
    given = as_shapes(shapes)
    if isinstance(source, str | Path):
        return _import_file(Path(source), given, example_inputs, arch, trust_pickle, part)
    return _import_torch(source if part is None else take_part(source, part), given, example_inputs)


def _import_file(
    path: Path, shapes: _Given, example_inputs: Any, arch: str | None, trust_pickle: bool, part: str | None
) -> list[ImportedModel]:
    check_file(path)
    if path.suffix == ".onnx":
        check_no_part(path, part)
        if example_inputs is None and not shapes and _is_open(inputs := onnx_inputs(path)):
            return [m.with_notes(assumed_batch(m.input_shapes)) for m in import_onnx(path, [list(shapes_for_one(inputs))])]
        return import_onnx(path, _onnx_shapes(path, shapes, example_inputs))
    loaded = load_torch_file(path, arch=arch, trust_pickle=trust_pickle, part=part)
    notes = loaded.notes
    if not shapes and example_inputs is None and (shape := loaded.input_shape or loaded.assumed_shape):
        shapes = [shape]
        notes = notes if loaded.input_shape else (assumed(loaded.arch, shape), *notes)
    imported = _import_torch(loaded.model, shapes, example_inputs)
    return [replace(model.with_notes(*notes), facts=loaded.facts, packed=loaded.packed) for model in imported]


@capturing()
def _import_torch(model: Any, shapes: _Given, example_inputs: Any) -> list[ImportedModel]:
    if isinstance(model, ExportedProgram):
        return _import_program(model, shapes, example_inputs)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"A model is a torch.nn.Module, an ExportedProgram or a path, not a {type(model).__name__}.")
    if isinstance(model, torch.jit.ScriptModule):
        return [_import_script(model, inputs) for inputs in _inputs(model, shapes, example_inputs)]
    return [_import_module(model, inputs) for inputs in _inputs(model, shapes, example_inputs)]


def _import_module(module: nn.Module, inputs: tuple[Any, ...]) -> ImportedModel:
    model = import_module(module, inputs)
    names = tuple(info.name for info in model_inputs(module))[: len(model.input_names)]
    return replace(model, input_names=names) if isinstance(module, Part) and len(names) == len(model.input_names) else model


def _import_script(script: torch.jit.ScriptModule, inputs: tuple[Any, ...]) -> ImportedModel:
    script, notes = inference_copy(script)
    program, names = export_script(script, inputs)
    model = import_exported(program, names).with_notes(NOTE, *notes)
    return replace(model, input_names=input_names(script, len(inputs)) or model.input_names)


def _import_program(program: ExportedProgram, shapes: _Given, example_inputs: Any) -> list[ImportedModel]:
    if not shapes and example_inputs is None:
        if not _is_open(inputs := model_inputs(program)):
            return [import_exported(program)]
        one = shapes_for_one(inputs)
        return [_import_dynamic(program, tuple(map(example_for, one))).with_notes(assumed_batch(one))]
    sets = _inputs(program, shapes, example_inputs)
    fixed = _static_shapes(program)
    if fixed is None:
        return [_import_dynamic(program, inputs) for inputs in sets]
    for asked in ([tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor)] for inputs in sets):
        if asked != fixed:
            raise ConfigError(
                f"The program was exported for input {_text(fixed)}, not {_text(asked)}.\nExport it with that shape or dynamic."
            )
    return [import_exported(program)]


def _import_dynamic(program: ExportedProgram, inputs: tuple[Any, ...]) -> ImportedModel:
    check_guards(program, inputs)
    return import_exported(export(program.module(), inputs))


def _is_open(inputs: Sequence[Input]) -> bool:
    """Whether the model says that it takes several sizes, or nothing of its sizes."""
    return any(info.shape is None or any(isinstance(n, str) for n in info.shape) for info in inputs)


def _static_shapes(program: ExportedProgram) -> list[tuple[int, ...]] | None:
    shapes = [info.shape or () for info in model_inputs(program)]
    return [_whole(shape) for shape in shapes] if all(isinstance(n, int) for shape in shapes for n in shape) else None


def _whole(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in shape)


def _text(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(",".join(map(str, shape)) for shape in shapes)


def _inputs(model: nn.Module | ExportedProgram, shapes: _Given, example_inputs: Any) -> list[tuple[Any, ...]]:
    """What to trace with, once for each set of shapes."""
    if example_inputs is not None:
        return [_given(model, example_inputs)]
    if not shapes:
        raise ConfigError("The model does not say its input shape. Pass one, such as --shape 1,3,224,224 (example_inputs in Python).")
    return [tuple(map(example_for, group)) for group in group_shapes(shapes, model_inputs(model))]


def _given(model: nn.Module | ExportedProgram, example_inputs: Any) -> tuple[Any, ...]:
    try:
        return given_examples(example_inputs, model_inputs(model))
    except UnsupportedModelError as error:  # a list of images, as detectors take it
        advice = suggested_part(inference_copy(model)[0], tuple(example_inputs)) if isinstance(model, nn.Module) else ""
        raise UnsupportedModelError(f"{str(error).splitlines()[0]}\n{advice}" if advice else str(error)) from error


def _onnx_shapes(path: Path, shapes: _Given, example_inputs: Any) -> list[list[tuple[int, ...]]]:
    """Per compiled function, the shapes of its inputs; empty where the model's own shapes serve."""
    if example_inputs is None and not shapes:
        return [[]]
    inputs = onnx_inputs(path)
    groups: list[tuple[InputShape, ...]] = []
    if example_inputs is not None:
        groups = group_shapes(shapes_of(given_examples(example_inputs, inputs)), inputs)
    return [list(group) for group in groups or group_shapes(shapes or [], inputs)]
