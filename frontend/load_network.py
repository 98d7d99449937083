"""A model file of any kind as a PyTorch network whose layers can be changed, and how a compressed
file will describe it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from subpc.algorithms.file_format.graph.network import Graph, GraphNetwork
from subpc.errors import ConfigError, UnsupportedModelError
from subpc.frontend.architectures.default_shape import assumed
from subpc.frontend.example_inputs import example_for, model_inputs
from subpc.frontend.files.load_file import load_torch_file
from subpc.frontend.from_onnx.network import OnnxFile
from subpc.frontend.from_onnx.to_graph import network_from_onnx
from subpc.frontend.from_torch.network import exported_network, static_shapes
from subpc.frontend.from_torch.to_graph import network_from_program
from subpc.frontend.input_shapes import for_one_image
from subpc.model_files import check_file

GRAPH = "graph"
# Networks of these sources are built again from their names; all others are kept whole in the file.
_NAMED = ("", "torchvision", "timm", "subpc")

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """model: in eval mode, float32. arch: its name with options, or `graph`; input_shape: () where
    nothing says it."""

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

    arch: of a state dict; shape: of the input, which TorchScript, ONNX files with open shapes and
    dynamic programs need. Raises ModelFileError, ConfigError, or UnsupportedModelError that names
    all operators that cannot be kept.
    """
    check_file(path)
    if path.suffix == ".onnx":
        model, shape = network_from_onnx(OnnxFile(path), shape)
        return Network(model=model, arch=GRAPH, input_shape=shape)
    loaded = load_torch_file(path, arch=arch)
    if not shape and not loaded.input_shape and loaded.assumed_shape:
        loaded = replace(loaded, notes=(assumed(loaded.arch, loaded.assumed_shape), *loaded.notes))
    shape = shape or loaded.input_shape or loaded.assumed_shape or None
    if isinstance(loaded.model, ExportedProgram):
        return _from_program(loaded.model, shape)
    if isinstance(loaded.model, torch.jit.ScriptModule):
        network = _from_script(loaded.model, shape)
        return replace(network, notes=(*loaded.notes, *network.notes))
    return _from_module(replace(loaded, input_shape=shape or ()))


def _from_program(program: ExportedProgram, shape: Shape | None) -> Network:
    fixed, inputs = static_shapes(program), model_inputs(program)
    if fixed is None and shape is None and len(inputs) == 1:
        shape = for_one_image(inputs[0])
    if fixed is not None and shape is not None and len(fixed) == 1 and shape[1:] != fixed[0][1:]:
        own, given = (",".join(map(str, sizes)) for sizes in (fixed[0], shape))
        raise ConfigError(
            f"The program was exported for input {own}, not {given}.\nExport it with that shape or"
            " dynamic."
        )
    network = exported_network(
        program, (example_for(shape),) if fixed is None and shape is not None else None
    )
    return Network(
        model=network_from_program(network),
        arch=GRAPH,
        input_shape=shape or (fixed[0] if fixed else ()),
    )


def _from_script(script: torch.jit.ScriptModule, shape: Shape | None) -> Network:
    if shape is None:
        raise ConfigError(
            "TorchScript does not say its input's shape. Pass one, such as --shape 1,3,224,224."
        )
    network = exported_network(script, (example_for(shape),))
    return Network(
        model=network_from_program(network), arch=GRAPH, input_shape=shape, notes=network.notes
    )


def _from_module(loaded: Any) -> Network:
    facts = {"input_shape": loaded.input_shape, "notes": loaded.notes}
    if isinstance(loaded.model, GraphNetwork):
        return Network(model=loaded.model, arch=GRAPH, **facts)
    named = Network(model=loaded.model, arch=loaded.arch, arch_options=loaded.arch_options, **facts)
    if loaded.arch.rpartition(":")[0] in _NAMED:
        return named
    if not loaded.input_shape:
        return _with_note(
            named,
            "pass --shape to keep the network itself in the file, so that --arch is not needed"
            " again",
        )
    try:
        network = exported_network(loaded.model, (example_for(loaded.input_shape),))
        return Network(model=network_from_program(network), arch=GRAPH, **facts)
    except UnsupportedModelError as error:
        return _with_note(
            named, f"the file needs --arch {loaded.arch} again: {str(error).splitlines()[0]}"
        )


def _with_note(network: Network, note: str) -> Network:
    return replace(network, notes=(*network.notes, note))
