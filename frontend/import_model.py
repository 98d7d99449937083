"""The one way in: a module, an exported program or a file becomes Relax functions, one per input shape."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.errors import ConfigError
from subpc.frontend.imported import ImportedModel
from subpc.frontend.load_file import check_file, load_torch_file
from subpc.frontend.onnx_import import import_onnx
from subpc.frontend.pt2_guards import check_guards
from subpc.frontend.torch_import import check_inputs, example_for, export, import_exported, import_module, inference_copy
from subpc.frontend.torchscript import NOTE, export_script, input_names

__all__ = ["ImportedModel", "import_model"]

Source = nn.Module | ExportedProgram | str | Path
Shapes = Sequence[tuple[int, ...]]


def import_model(
    source: Source,
    *,
    shapes: Shapes | None = None,
    example_inputs: Sequence[Any] | torch.Tensor | None = None,
    arch: str | None = None,
    trust_pickle: bool = False,
) -> list[ImportedModel]:
    """Import `source` once per shape; files may need `arch`, and are never unpickled without `trust_pickle`."""
    if isinstance(source, str | Path):
        return _import_file(Path(source), shapes, example_inputs, arch, trust_pickle)
    return _import_torch(source, shapes, example_inputs)


def _import_file(path: Path, shapes: Shapes | None, example_inputs: Any, arch: str | None, trust_pickle: bool) -> list[ImportedModel]:
    check_file(path)
    if path.suffix == ".onnx":
        return import_onnx(path, _onnx_shapes(shapes, example_inputs))
    loaded = load_torch_file(path, arch=arch, trust_pickle=trust_pickle)
    if not shapes and example_inputs is None and loaded.input_shape:
        shapes = [loaded.input_shape]
    imported = _import_torch(loaded.model, shapes, example_inputs)
    return [replace(model.with_notes(*loaded.notes), facts=loaded.facts, packed=loaded.packed) for model in imported]


def _import_torch(model: Any, shapes: Shapes | None, example_inputs: Any) -> list[ImportedModel]:
    if isinstance(model, ExportedProgram):
        return _import_program(model, shapes, example_inputs)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"A model is a torch.nn.Module, an ExportedProgram or a path, not a {type(model).__name__}.")
    if isinstance(model, torch.jit.ScriptModule):
        return [_import_script(model, inputs) for inputs in _inputs(shapes, example_inputs)]
    return [import_module(model, inputs) for inputs in _inputs(shapes, example_inputs)]


def _import_script(script: torch.jit.ScriptModule, inputs: tuple[Any, ...]) -> ImportedModel:
    script, notes = inference_copy(script)
    program, names = export_script(script, inputs)
    model = import_exported(program, names).with_notes(NOTE, *notes)
    return replace(model, input_names=input_names(script, len(inputs)) or model.input_names)


def _import_program(program: ExportedProgram, shapes: Shapes | None, example_inputs: Any) -> list[ImportedModel]:
    if not shapes and example_inputs is None:
        return [import_exported(program)]
    fixed = _static_shapes(program)
    if fixed is None:
        return [_import_dynamic(program, inputs) for inputs in _inputs(shapes, example_inputs)]
    asked = [[tuple(x.shape) for x in inputs] for inputs in _inputs(shapes, example_inputs)]
    if any(shape != fixed for shape in asked):
        raise ConfigError(
            f"The program was exported for input {_text(fixed)}, not {_text(asked[0])}.\nExport it with that shape or dynamic."
        )
    return [import_exported(program)]


def _import_dynamic(program: ExportedProgram, inputs: tuple[Any, ...]) -> ImportedModel:
    check_guards(program, inputs)
    return import_exported(export(program.module(), inputs))


def _static_shapes(program: ExportedProgram) -> list[tuple[int, ...]] | None:
    names = set(program.graph_signature.user_inputs)
    shapes = [tuple(n.meta["val"].shape) for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    return shapes if all(isinstance(n, int) for shape in shapes for n in shape) else None


def _text(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(",".join(map(str, shape)) for shape in shapes)


def _inputs(shapes: Shapes | None, example_inputs: Any) -> list[tuple[Any, ...]]:
    if example_inputs is not None:
        tensors = (example_inputs,) if isinstance(example_inputs, torch.Tensor | np.ndarray) else tuple(example_inputs)
        return [check_inputs(tensors)]
    if not shapes:
        raise ConfigError("The model does not say its input shape. Pass one, such as --shape 1,3,224,224.")
    return [(example_for(shape),) for shape in shapes]


def _onnx_shapes(shapes: Shapes | None, example_inputs: Any) -> list[list[tuple[int, ...]]]:
    """Per compiled function, the shapes of its inputs; empty where the model's own shapes serve."""
    if example_inputs is not None or shapes:
        return [[tuple(x.shape) for x in inputs] for inputs in _inputs(shapes, example_inputs)]
    return [[]]
