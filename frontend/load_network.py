"""A model file of any kind as a PyTorch network whose layers can be changed, and how a compressed file will describe it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.algorithms.file_format.graph.network import Graph, GraphNetwork
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.default_shape import assumed
from subpc.frontend.example_inputs import example_for
from subpc.frontend.files.load_file import load_torch_file
from subpc.frontend.files.pt2.guards import check_guards
from subpc.frontend.from_onnx.to_graph import network_from_onnx
from subpc.frontend.from_torch.to_graph import network_from_program
from subpc.frontend.from_torch.to_relax import export, inference_copy
from subpc.frontend.from_torch.torchscript import NOTE, export_script
from subpc.model_files import check_file

GRAPH = "graph"
# Networks of these sources are built again from their names; all others are kept whole in the file.
_NAMED = ("", "torchvision", "timm", "subpc")

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """model: in eval mode, float32. arch: its name with options, or `graph`; input_shape: () where nothing says it."""

    model: nn.Module
    arch: str
    arch_options: dict[str, Any] = field(default_factory=dict)
    input_shape: Shape = ()
    notes: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph | None:
        """What a file has to hold beside the weights."""
        return self.model.subpc_graph if isinstance(self.model, GraphNetwork) else None


def load_network(path: Path, *, arch: str | None = None, shape: Shape | None = None) -> Network:
    """The network in `path`; nothing in the file is run.

    arch: of a state dict; shape: of the input, which TorchScript, ONNX files with open shapes and dynamic programs need.
    Raises ModelFileError, ConfigError, or UnsupportedModelError that names all operators that cannot be kept.
    """
    check_file(path)
    if path.suffix == ".onnx":
        model, shape = network_from_onnx(path, shape)
        return Network(model=model, arch=GRAPH, input_shape=shape)
    loaded = load_torch_file(path, arch=arch)
    if not shape and not loaded.input_shape and loaded.assumed_shape:
        loaded = replace(loaded, notes=(assumed(loaded.arch, loaded.assumed_shape), *loaded.notes))
    shape = shape or loaded.input_shape or loaded.assumed_shape or None
    if isinstance(loaded.model, ExportedProgram):
        return _from_program(loaded.model, shape)
    if isinstance(loaded.model, torch.jit.ScriptModule):
        network = _from_script(loaded.model, shape)
        return replace(network, notes=(NOTE, *loaded.notes, *network.notes))
    return _from_module(replace(loaded, input_shape=shape or ()))


def _from_program(program: ExportedProgram, shape: Shape | None) -> Network:
    inputs = [node.meta["val"] for node in program.graph.find_nodes(op="placeholder") if node.name in program.graph_signature.user_inputs]
    if len(inputs) == 1 and isinstance(inputs[0], torch.Tensor):
        own = tuple(inputs[0].shape)
        fixed = all(isinstance(n, int) for n in own)
        if not fixed and shape is None and all(isinstance(n, int) for n in own[1:]):
            shape = (1, *own[1:])
        if not fixed and shape is not None:
            example = (example_for(shape),)
            check_guards(program, example)
            program = export(program.module(), example)
        elif shape is not None and shape[1:] != own[1:]:
            raise ConfigError(
                f"The program was exported for input {','.join(map(str, own))}, not {','.join(map(str, shape))}.\n"
                "Export it with that shape or dynamic."
            )
        shape = shape or own
    return Network(model=network_from_program(program), arch=GRAPH, input_shape=shape or ())


def _from_script(script: torch.jit.ScriptModule, shape: Shape | None) -> Network:
    if shape is None:
        raise ConfigError("TorchScript does not say its input's shape. Pass one, such as --shape 1,3,224,224.")
    script, notes = inference_copy(script)
    program, names = export_script(script, (example_for(shape),))
    return Network(model=network_from_program(program, names), arch=GRAPH, input_shape=shape, notes=notes)


def _from_module(loaded: Any) -> Network:
    facts = {"input_shape": loaded.input_shape, "notes": loaded.notes}
    if isinstance(loaded.model, GraphNetwork):
        return Network(model=loaded.model, arch=GRAPH, **facts)
    named = Network(model=loaded.model, arch=loaded.arch, arch_options=loaded.arch_options, **facts)
    if loaded.arch.rpartition(":")[0] in _NAMED:
        return named
    if not loaded.input_shape:
        return _with_note(named, "pass --shape to keep the network itself in the file, so that --arch is not needed again")
    try:
        program = export(loaded.model, (example_for(loaded.input_shape),))
        return Network(model=network_from_program(program), arch=GRAPH, **facts)
    except UnsupportedModelError as error:
        return _with_note(named, f"the file needs --arch {loaded.arch} again: {str(error).splitlines()[0]}")


def _with_note(network: Network, note: str) -> Network:
    return replace(network, notes=(*network.notes, note))
