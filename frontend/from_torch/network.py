"""A PyTorch model as an exported program with static shapes: import, compression and comparison all
start from here."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.example_inputs import model_inputs
from subpc.frontend.files.pt2.guards import check_guards
from subpc.frontend.from_torch.decompose import decompose
from subpc.frontend.from_torch.export import FLOATS, export, inference_copy
from subpc.frontend.from_torch.nodes import layer_name
from subpc.frontend.from_torch.torchscript import NOTE, export_script, input_names
from subpc.frontend.parts import Part
from subpc.frontend.plain_graph.reader import Weight

# PyTorch takes one image for a batch here; TVM does not.
_PLANAR = frozenset({"aten.conv2d.default", "aten.max_pool2d.default", "aten.avg_pool2d.default"})
_OWNED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


@dataclass(frozen=True, kw_only=True)
class ExportedNetwork:
    """A program that `exported_network` has checked. notes: what was changed on the way to it.

    names: of constants that are weights, by what the program calls them. given_names: of the
    inputs, where the model has other ones than the program.
    """

    program: ExportedProgram
    names: dict[str, str]
    given_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The tensors that a caller gives, without their values, by the program's names."""
        values = {
            node.name: node.meta["val"]
            for node in self.program.graph.nodes
            if node.op == "placeholder"
        }
        given = self.program.graph_signature.user_inputs
        return {
            str(name): values[name] for name in given if isinstance(values.get(name), torch.Tensor)
        }

    @property
    def input_names(self) -> tuple[str, ...]:
        """As the author wrote them."""
        return self.given_names if len(self.given_names) == len(self.inputs) else tuple(self.inputs)

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """Every tensor that the program owns, of whatever type, by the name of its placeholder."""
        found = {}
        for spec in self.program.graph_signature.input_specs:
            target = str(spec.target)
            value = self.program.state_dict.get(target, self.program.constants.get(target))
            if spec.kind in _OWNED and isinstance(value, torch.Tensor):
                found[str(spec.arg.name)] = Weight(self.names.get(target, target), value)
        return found

    @property
    def nodes(self) -> Iterable[fx.Node]:
        """Each after those that it reads."""
        return self.program.graph.nodes  # type: ignore[no-any-return]

    def decomposed(self) -> "ExportedNetwork":
        """The same with simple operators in place of most composite ones; its program is the
        caller's own to change."""
        return replace(self, program=decompose(self.program))


def exported_network(
    model: nn.Module | ExportedProgram, inputs: tuple[Any, ...] | None = None
) -> ExportedNetwork:
    """The network of a module, a script or a program for inputs like these; a program with static
    shapes needs none.

    `model` stays as it is. Raises ConfigError for inputs that it does not take,
    UnsupportedModelError where it cannot be captured, or where its inputs are of a kind that
    compiled models do not take.
    """
    network = _captured(model, inputs)
    _check(network.program, network.inputs)
    return network


def _captured(
    model: nn.Module | ExportedProgram, inputs: tuple[Any, ...] | None
) -> ExportedNetwork:
    if isinstance(model, ExportedProgram):
        return ExportedNetwork(program=_program_for(model, inputs), names={})
    if inputs is None:
        raise ConfigError(
            "The model does not say its input shape. Pass one, such as --shape 1,3,224,224."
        )
    model, notes = inference_copy(model)
    if isinstance(model, torch.jit.ScriptModule):
        program, names = export_script(model, inputs)
        return ExportedNetwork(
            program=program,
            names=names,
            given_names=input_names(model, len(inputs)),
            notes=(NOTE, *notes),
        )
    given = (
        tuple(info.name for info in model_inputs(model))[: len(inputs)]
        if isinstance(model, Part)
        else ()
    )
    return ExportedNetwork(program=export(model, inputs), names={}, given_names=given, notes=notes)


def static_shapes(program: ExportedProgram) -> list[tuple[int, ...]] | None:
    """The shapes of a program's inputs; None where one of them is open."""
    shapes = [info.shape or () for info in model_inputs(program)]
    whole = [tuple(n for n in shape if isinstance(n, int)) for shape in shapes]
    return whole if all(len(a) == len(b) for a, b in zip(whole, shapes, strict=True)) else None


def _program_for(program: ExportedProgram, inputs: tuple[Any, ...] | None) -> ExportedProgram:
    fixed = static_shapes(program)
    if inputs is None:
        return program
    if fixed is None:
        check_guards(program, inputs)
        module = program.module()
        return export(module, inputs, weights=[*module.parameters(), *module.buffers()])
    asked = [tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor)]
    if asked != fixed:
        raise ConfigError(
            f"The program was exported for input {_text(fixed)}, not {_text(asked)}.\nExport it"
            " with that shape or dynamic."
        )
    return program


def _text(shapes: Iterable[tuple[int, ...]]) -> str:
    return " and ".join(",".join(map(str, shape)) for shape in shapes)


def _check(program: ExportedProgram, inputs: dict[str, torch.Tensor]) -> None:
    if not inputs:
        raise UnsupportedModelError(
            "The model has no tensor inputs, so there is nothing to compile it for."
        )
    for name, value in inputs.items():
        if value.dtype in FLOATS:
            raise UnsupportedModelError(
                f"Input {name!r} is {value.dtype}; compiled models take float32. Export it with"
                " float32 input."
            )
        if any(not isinstance(n, int) for n in value.shape):
            raise ConfigError(
                f"Input {name!r} has the symbolic shape {tuple(value.shape)}. Pass one, such as"
                " --shape 1,3,224,224."
            )
    for node in program.graph.nodes:
        if str(node.target) in _PLANAR and node.args[0].meta["val"].ndim != 4:
            shape = tuple(node.args[0].meta["val"].shape)
            raise ConfigError(
                f"Layer {layer_name(node)} gets {shape}, which has no batch dimension. Pass a shape"
                " such as 1,3,224,224."
            )
        if _trains(node):
            raise UnsupportedModelError(
                f"The program was exported in training mode: {layer_name(node)} would change with"
                " every input.\nCall model.eval() before torch.export."
            )


def _trains(node: fx.Node) -> bool:
    """Whether a node is a batch norm that follows up its statistics, or a dropout that drops."""
    name = str(node.target)
    if name == "aten.batch_norm.default":
        return node.args[3] is not None and node.args[5] is True
    return name == "aten.dropout.default" and node.args[2] is True
