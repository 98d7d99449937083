"""An exported program as a network of plain layers: every aten operator becomes a layer or an operator that files can hold."""

import operator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.graph_converters import CONVERTERS, Weight
from subpc.frontend.from_torch.supported import layer_name
from subpc.frontend.from_torch.to_relax import check_program, decompose
from subpc.frontend.graph_builder import GraphBuilder, refuse_all
from subpc.frontend.messages import first_line

# No network computes a larger tensor from its weights alone (1 GiB); a hostile program can ask for any size.
_MAX_CONSTANT = 1 << 28


def network_from_program(program: ExportedProgram, constant_names: dict[str, str] | None = None) -> GraphNetwork:
    """The program's network, for batches of any size; constant_names: original names of constants that are weights.

    Raises UnsupportedModelError that names all operators, with their layers, that a file of ours cannot hold.
    """
    program = decompose(check_program(program))
    reader = ProgramReader(program, constant_names or {})
    (output,) = program.graph.find_nodes(op="output")
    wanted = [node for node in output.args[0] if isinstance(node, fx.Node)]
    if any(spec.kind.name != "USER_OUTPUT" for spec in program.graph_signature.output_specs):
        raise UnsupportedModelError("The program changes its own weights or inputs; export it in eval mode.")
    return reader.builder.network([reader.value(node) for node in wanted])


class ProgramReader:
    """Goes through the nodes; `env` has a number (a value of the builder) or a Weight for each, a list for several results."""

    def __init__(self, program: ExportedProgram, constant_names: dict[str, str]) -> None:
        self.builder = GraphBuilder()
        self.env: dict[fx.Node, Any] = {}
        self.missing: dict[str, list[str]] = {}
        self._place_inputs(program, constant_names)
        for node in program.graph.nodes:
            if node.op == "call_function":
                self.env[node] = self._converted(node)
        refuse_all(self.missing)

    def value(self, node: fx.Node) -> int:
        """The builder's value of a node, which may be a weight."""
        found = self.env[node]
        if isinstance(found, Weight):
            return self.builder.tensor(found.name, found.value)
        assert isinstance(found, int)
        return found

    def _place_inputs(self, program: ExportedProgram, constant_names: dict[str, str]) -> None:
        users = program.graph_signature.user_inputs
        if len(users) != 1:
            raise UnsupportedModelError(f"The network has {len(users)} inputs; networks with one tensor as input can be compressed.")
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        for node in program.graph.nodes:
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                self.env[node] = 0
                continue
            target = str(spec.target)
            value = program.state_dict.get(target, program.constants.get(target))
            if isinstance(value, torch.Tensor):
                self.env[node] = Weight(constant_names.get(target, target), value)

    def _converted(self, node: fx.Node) -> Any:
        """What the node gives; None, with the operator noted, where there is no way."""
        sources = [arg for arg in node.all_input_nodes if self.env.get(arg) is None]
        if sources:
            return None  # behind an operator that is missing
        name = str(node.target)
        try:
            if node.target is operator.getitem:
                return self.env[node.args[0]][node.args[1]]  # type: ignore[index]
            if all(isinstance(self.env[arg], Weight) for arg in node.all_input_nodes):
                return self._constant(node)
            convert = CONVERTERS.get(name)
            result = convert(node, self) if convert is not None else None
        except Exception as error:
            name, result = f"{name}: {first_line(error, 80)}", None
        if result is None:
            self.missing.setdefault(name, []).append(layer_name(node))
        return result

    def _constant(self, node: fx.Node) -> Any:
        """What follows from weights alone, computed."""
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.numel() > _MAX_CONSTANT:
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda arg: self.env[arg].value)
        with torch.no_grad():
            return Weight(node.name, node.target(*args, **kwargs))  # type: ignore[operator]
