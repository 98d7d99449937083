"""PyTorch to Relax: torch.export, the decompositions we want (and not those we do not), then TVM's importer."""

import copy
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import tvm
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from subpc.algorithms.network.tensor_kinds import held_tensors, strange_tensors
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.finish_import import abandon, prepare_module
from subpc.frontend.from_torch.fold import Weights as _Weights
from subpc.frontend.from_torch.fold import fold_weights
from subpc.frontend.from_torch.supported import KEPT_WHOLE, Importer, layer_name, unsupported_operators
from subpc.frontend.imported_model import ImportedModel, weight_warnings
from subpc.frontend.messages import first_line
from subpc.frontend.one_at_a_time import capturing
from subpc.frontend.output_names import output_names
from subpc.frontend.parts import suggested_part

Module = TypeVar("Module", bound=nn.Module)

# PyTorch takes one image for a batch here; TVM does not.
_PLANAR = frozenset({"aten.conv2d.default", "aten.max_pool2d.default", "aten.avg_pool2d.default"})
_FLOATS = (torch.float16, torch.bfloat16, torch.float64)


def import_module(module: nn.Module, example_inputs: tuple[Any, ...]) -> ImportedModel:
    """The Relax form of `module` in eval mode, for inputs shaped like `example_inputs`; `module` itself is left as it is."""
    module, notes = inference_copy(module)
    return import_exported(export(module, example_inputs)).with_notes(*notes)


def inference_copy(module: Module) -> tuple[Module, tuple[str, ...]]:
    """`module` in eval mode, float32, on the CPU: itself where it is that already, else a copy; and what was changed."""
    tensors = [*module.parameters(), *module.buffers()]
    _check_weights(module)
    training = any(getattr(part, "training", False) for part in module.modules())  # a frozen script has no mode
    other = sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype in _FLOATS})
    notes = [f"weights converted from {' and '.join(other)} to float32"] if other else []
    notes += ["the model was in training mode, and is taken as model.eval() leaves it"] if training else []
    if not training and not other and all(t.device.type == "cpu" for t in tensors):
        return module, ()
    with _quiet():
        return copy.deepcopy(module).cpu().float().eval(), tuple(notes)


def _check_weights(module: nn.Module) -> None:
    """UnsupportedModelError where weights are no arrays of floats."""
    strange = strange_tensors(held_tensors(module))
    if not strange:
        wrong = [(name, value) for name, value in module.named_parameters() if value.dim() and not value.is_floating_point()]
        strange = ", ".join(f"{name} is {str(value.dtype).removeprefix('torch.')}" for name, value in wrong[:3])
    if strange:
        raise UnsupportedModelError(
            f"The model has weights that are no plain floats: {strange}.\nPass the network as it was before quantization or conversion."
        )


@capturing()
def export(module: nn.Module, example_inputs: tuple[Any, ...]) -> ExportedProgram:
    """torch.export, with its reasons for a refusal in two lines instead of a traceback."""
    try:
        with torch.no_grad():
            module(*example_inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in example_inputs if isinstance(x, torch.Tensor))
        advice = suggested_part(module, example_inputs, keyed=True) or "Pass the shape it expects."
        raise ConfigError(f"The model cannot run on input of shape {shapes}: {first_line(error)}\n{advice}") from error
    try:
        with _quiet():
            return capture(module, example_inputs)
    except Exception as error:
        advice = suggested_part(module, example_inputs) or "The forward pass must not depend on the values in its tensors."
        raise UnsupportedModelError(f"torch.export cannot capture {type(module).__name__}: {first_line(error)}\n{advice}") from error


def capture(module: nn.Module, example_inputs: tuple[Any, ...]) -> ExportedProgram:
    """torch.export, which prints the whole graph to stderr where it fails: what its module prints is dropped. For use under `capturing`."""
    names: dict[str, Any] = vars(importlib.import_module("torch.export._trace"))
    names["print"] = lambda *args, **kwargs: None
    try:
        return torch.export.export(module, example_inputs)
    finally:
        del names["print"]


@contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, and none of the warnings in which torch tells its own parts what will change."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="The tensor attribute.* assigned during export")  # a hook that computes a weight
        warnings.filterwarnings("ignore", message="A model attribute .* requires gradient|The .grad attribute of a Tensor")
        yield


def import_exported(program: ExportedProgram, constant_names: dict[str, str] | None = None) -> ImportedModel:
    """The Relax form of a program with static shapes; `constant_names` are the original names of constants that are weights."""
    program = decompose(check_program(program))
    weights = _weights(program, constant_names or {})
    weights = fold_weights(program, weights, _tensors(program))
    refused = unsupported_operators(program)
    if refused:
        raise UnsupportedModelError(refused)
    inputs = _user_inputs(program)
    outputs = output_names(program.call_spec.out_spec, len(program.graph_signature.user_outputs))
    left_out = _keep_tensor_outputs(program)
    importer = Importer()
    try:
        module = importer.from_exported_program(
            program, keep_params_as_input=True, unwrap_unit_return_tuple=True, no_bind_return_tuple=False, custom_convert_map=None
        )
    except Exception as error:
        abandon(importer.block_builder)
        raise UnsupportedModelError(
            f"The model cannot be imported into TVM, at {importer.at}: {first_line(error)}\n"
            "Replace this layer in the model before compiling."
        ) from error
    names = tuple(name for index, name in enumerate(outputs) if index not in left_out)
    note = [f"output {outputs[index]!r} is always {value}, and left out" for index, value in left_out.items()]
    return _imported(module, inputs, names, weights).with_notes(*note)


def _imported(module: tvm.IRModule, inputs: dict[str, torch.Tensor], outputs: tuple[str, ...], weights: "_Weights") -> ImportedModel:
    module, names = prepare_module(module, len(inputs))
    params = {name: _numpy(weights[name][1]) for name in names}
    param_names = {name: weights[name][0] for name in names}
    return ImportedModel(
        module=module,
        input_names=tuple(inputs),
        input_shapes=tuple(tuple(int(n) for n in value.shape) for value in inputs.values()),
        input_dtypes=tuple(str(value.dtype).removeprefix("torch.") for value in inputs.values()),
        output_names=outputs,
        params=params,
        param_names=param_names,
        notes=weight_warnings(params, param_names),
    )


def decompose(program: ExportedProgram) -> ExportedProgram:
    """In-place operators made functional and composites opened, except those that passes want to see whole."""
    table = torch.export.default_decompositions()
    for operator in list(table):
        if str(operator) in KEPT_WHOLE:
            del table[operator]
    table[torch.ops.aten._convolution.default] = _plain_convolution
    try:
        with _quiet():
            decomposed: ExportedProgram = program.run_decompositions(table)
    except Exception as error:
        raise UnsupportedModelError(
            f"The exported program cannot be decomposed into simple operators: {first_line(error)}\nExport the model again with this torch."
        ) from error
    return decomposed


def _plain_convolution(*arguments: Any) -> torch.Tensor:
    """What a traced script calls a convolution: the same, with switches for other backends behind it."""
    result: torch.Tensor = torch.ops.aten.convolution.default(*arguments[:9])
    return result


_WEIGHT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def _weights(program: ExportedProgram, constant_names: dict[str, str]) -> _Weights:
    """Every float tensor the program owns, made a parameter: TVM would bind buffers and constants, which then have no names."""
    weights: _Weights = {}
    for spec in program.graph_signature.input_specs:
        value = _owned(program, spec)
        target = str(spec.target)
        if value is None:
            continue
        if value.dtype != torch.float32 or value.ndim == 0:
            if spec.kind is InputKind.PARAMETER:  # a single number is no weight that anything is packed for
                spec.kind = InputKind.CONSTANT_TENSOR
                program.constants[target] = value.detach()
                program.state_dict.pop(target, None)
            continue
        weights[spec.arg.name] = (constant_names.get(target, target), value)
        program.state_dict[target] = value
        program.constants.pop(target, None)
        spec.kind = InputKind.PARAMETER
    return weights


def _tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Every tensor that the program owns, of whatever type, by the name of its placeholder."""
    owned = {spec.arg.name: _owned(program, spec) for spec in program.graph_signature.input_specs}
    return {name: value for name, value in owned.items() if value is not None}


def _owned(program: ExportedProgram, spec: InputSpec) -> torch.Tensor | None:
    if spec.kind not in _WEIGHT_KINDS:
        return None
    value = program.state_dict.get(str(spec.target), program.constants.get(str(spec.target)))
    return value if isinstance(value, torch.Tensor) else None


def check_program(program: ExportedProgram) -> ExportedProgram:
    """`program`, if its inputs are of a kind that compiled models take."""
    inputs = _user_inputs(program)
    if not inputs:
        raise UnsupportedModelError("The model has no tensor inputs, so there is nothing to compile it for.")
    for name, value in inputs.items():
        if value.dtype in _FLOATS:
            raise UnsupportedModelError(f"Input {name!r} is {value.dtype}; compiled models take float32. Export it with float32 input.")
        if any(not isinstance(n, int) for n in value.shape):
            raise ConfigError(f"Input {name!r} has the symbolic shape {tuple(value.shape)}. Pass one, such as --shape 1,3,224,224.")
    for node in program.graph.nodes:
        if str(node.target) in _PLANAR and node.args[0].meta["val"].ndim != 4:
            shape = tuple(node.args[0].meta["val"].shape)
            raise ConfigError(f"Layer {layer_name(node)} gets {shape}, which has no batch dimension. Pass a shape such as 1,3,224,224.")
        if _trains(node):
            raise UnsupportedModelError(
                f"The program was exported in training mode: {layer_name(node)} would change with every input.\n"
                "Call model.eval() before torch.export."
            )
    return program


def _trains(node: fx.Node) -> bool:
    """Whether a node is a batch norm that follows up its statistics, or a dropout that drops."""
    name = str(node.target)
    if name == "aten.batch_norm.default":
        return node.args[3] is not None and node.args[5] is True
    return name == "aten.dropout.default" and node.args[2] is True


def _user_inputs(program: ExportedProgram) -> dict[str, torch.Tensor]:
    names = program.graph_signature.user_inputs
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return {str(name): values[name] for name in names if isinstance(values.get(name), torch.Tensor)}


def _keep_tensor_outputs(program: ExportedProgram) -> dict[int, Any]:
    """Take None and numbers out of what the program returns; gives their positions among the user's outputs, and what they are."""
    (node,) = program.graph.find_nodes(op="output")
    specs = program.graph_signature.output_specs
    first = len(specs) - len(program.graph_signature.user_outputs)  # what the program changes comes before what it returns
    other = {index: value for index, value in enumerate(node.args[0]) if not isinstance(value, torch.fx.Node)}
    node.args = (tuple(value for value in node.args[0] if isinstance(value, torch.fx.Node)),)
    for index in sorted(other, reverse=True):
        del specs[index]
    if not node.args[0]:
        raise UnsupportedModelError("The model returns no tensor, so there is nothing to compile.")
    return {index - first: value for index, value in other.items()}


def _numpy(value: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.detach().numpy())
