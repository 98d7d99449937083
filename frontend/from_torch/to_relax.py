"""An exported network in Relax: what follows from weights computed, then TVM's importer with
converters of ours."""

from typing import Any

import numpy as np
import torch
import tvm
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from subpc.errors import UnsupportedModelError
from subpc.frontend.finish_import import abandon, prepare_module
from subpc.frontend.from_torch.fold import Weights, fold_weights
from subpc.frontend.from_torch.indices import check_indices
from subpc.frontend.from_torch.network import ExportedNetwork
from subpc.frontend.from_torch.supported import Importer, unsupported_operators
from subpc.frontend.imported_model import ImportedModel, weight_warnings
from subpc.frontend.messages import first_line
from subpc.frontend.output_names import output_names


def import_exported(network: ExportedNetwork) -> ImportedModel:
    """The network in Relax; UnsupportedModelError that names the layers that have no conversion."""
    simple = network.decomposed()
    program = simple.program
    owned = {name: weight.value for name, weight in simple.weights.items()}
    check_indices(program.graph, owned)
    weights = fold_weights(program, _as_parameters(simple), owned)
    refused = unsupported_operators(program)
    if refused:
        raise UnsupportedModelError(refused)
    outputs = output_names(program.call_spec.out_spec, len(program.graph_signature.user_outputs))
    left_out = _keep_tensor_outputs(program)
    module = _in_relax(program)
    names = tuple(name for index, name in enumerate(outputs) if index not in left_out)
    note = [
        f"output {outputs[index]!r} is always {value}, and left out"
        for index, value in left_out.items()
    ]
    return _imported(module, network, names, weights).with_notes(*network.notes, *note)


def _in_relax(program: ExportedProgram) -> tvm.IRModule:
    importer = Importer()
    try:
        return importer.from_exported_program(
            program,
            keep_params_as_input=True,
            unwrap_unit_return_tuple=True,
            no_bind_return_tuple=False,
            custom_convert_map=None,
        )
    except Exception as error:
        abandon(importer.block_builder)
        raise UnsupportedModelError(
            f"The model cannot be imported into TVM, at {importer.at}: {first_line(error)}\n"
            "Replace this layer in the model before compiling."
        ) from error


def _imported(
    module: tvm.IRModule, network: ExportedNetwork, outputs: tuple[str, ...], weights: Weights
) -> ImportedModel:
    inputs = network.inputs.values()
    module, names = prepare_module(module, len(inputs))
    params = {name: _numpy(weights[name].value) for name in names}
    param_names = {name: weights[name].name for name in names}
    return ImportedModel(
        module=module,
        input_names=network.input_names,
        input_shapes=tuple(tuple(int(n) for n in value.shape) for value in inputs),
        input_dtypes=tuple(str(value.dtype).removeprefix("torch.") for value in inputs),
        output_names=outputs,
        params=params,
        param_names=param_names,
        notes=weight_warnings(params, param_names),
        codes={name: codes for name in names if (codes := weights[name].codes) is not None},
    )


def _as_parameters(network: ExportedNetwork) -> Weights:
    """Every float tensor the program owns, made a parameter: TVM would bind buffers and constants,
    which then have no names."""
    program, weights = network.program, Weights()
    for spec in program.graph_signature.input_specs:
        weight = network.weights.get(spec.arg.name)
        if weight is None:
            continue
        target = str(spec.target)
        if weight.value.dtype != torch.float32 or weight.value.ndim == 0:
            if (
                spec.kind is InputKind.PARAMETER
            ):  # a single number is no weight that anything is packed for
                spec.kind = InputKind.CONSTANT_TENSOR
                program.constants[target] = weight.value.detach()
                program.state_dict.pop(target, None)
            continue
        weights[spec.arg.name] = weight
        program.state_dict[target] = weight.value
        program.constants.pop(target, None)
        spec.kind = InputKind.PARAMETER
    return weights


def _keep_tensor_outputs(program: ExportedProgram) -> dict[int, Any]:
    """Take None and numbers out of what the program returns; gives their positions among the user's
    outputs, and what they are."""
    (node,) = program.graph.find_nodes(op="output")
    specs = program.graph_signature.output_specs
    first = len(specs) - len(
        program.graph_signature.user_outputs
    )  # what the program changes comes before what it returns
    other = {
        index: value
        for index, value in enumerate(node.args[0])
        if not isinstance(value, torch.fx.Node)
    }
    node.args = (tuple(value for value in node.args[0] if isinstance(value, torch.fx.Node)),)
    for index in sorted(other, reverse=True):
        del specs[index]
    if not node.args[0]:
        raise UnsupportedModelError("The model returns no tensor, so there is nothing to compile.")
    return {index - first: value for index, value in other.items()}


def _numpy(value: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.detach().numpy())
