"""The whole compile in one place: from imported Relax modules to a shared object.

    compile_networks
        rewrite_model   for each network: Relax passes, then a decision for each layer; where there
                        are codes, operators of integers first
        choose          for each network: tuned schedules, where some are known
        lower_model     for each network: kernel calls, into one store of weights
        emit_library    for all: memory, kernels, entry points, linking

What a file holds beside that, and how it is written, is in library/artifact.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from subpc.frontend.imported_model import ImportedModel
from subpc.frontend.weight_codes import WeightCodes
from subpc.library.report import TensorInfo
from subpc.machine.target import Target
from subpc.passes import ops
from subpc.passes.codes import check_integers
from subpc.passes.dataflow import Dataflow
from subpc.passes.decide_layers import Decision, decide_layers
from subpc.passes.emit_library import EmittedLibrary, emit_library
from subpc.passes.fold_affine import fold_affine
from subpc.passes.fold_input_affine import fold_input_affine
from subpc.passes.fuse_elementwise import fuse_elementwise
from subpc.passes.fuse_epilogue import fuse_epilogue
from subpc.passes.join_steps import join_steps
from subpc.passes.keep_codes import codes_of_layers, keep_codes
from subpc.passes.kernel_objects import KernelObjects
from subpc.passes.label_layers import label_layers, settle_layers
from subpc.passes.legalize_rest import legalize_rest
from subpc.passes.lower import Lowering
from subpc.passes.lowering_rules import LOWERING_RULES
from subpc.passes.move_quantize import move_quantize
from subpc.passes.named_defects import named_defects
from subpc.passes.norm_statistics import Norm, norm_statistics
from subpc.passes.other_layers import OtherLayer, layer_order, other_layers
from subpc.passes.program import Program, WeightStore
from subpc.passes.recognise_activations import recognise_activations
from subpc.passes.recognise_quantized import recognise_quantized
from subpc.passes.recognise_shapes import recognise_shapes
from subpc.passes.split_channel_scales import split_channel_scales
from subpc.passes.static_shapes import check_shapes
from subpc.passes.to_integers import has_codes, to_integers
from subpc.passes.transposed_convs import split_phases
from subpc.passes.trim_taps import trim_taps
from subpc.passes.workloads import apply_choices, chosen, conv_workloads
from subpc.progress import Progress, silent
from subpc.schedules.isa import VectorIsa
from subpc.schedules.workload import Choice, ConvWorkload

ModulePass = Callable[[tvm.IRModule], tvm.IRModule]
# (phase, text): a module as TVM script, and as the last phase the program as a list.
Dump = Callable[[str, str], None]
PROGRAM = "program"


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """One network for one input shape: its kernel calls, and what was decided about each layer.

    workloads, choices: of every convolution that can be tuned, and the schedule that it got.
    others: the layers that run in the fallback; order: the names of all layers, as in the model.
    """

    program: Program
    decisions: dict[str, Decision]
    layers: dict[str, relax.Call]
    others: dict[str, OtherLayer]
    order: list[str]
    workloads: dict[str, ConvWorkload]
    choices: dict[str, Choice]


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """A network as few, large operators, with a decision for each layer: what can be lowered again
    and again with other schedules. norms: what is known of the layers' results on the images that
    the network was trained with."""

    module: tvm.IRModule
    graph: Dataflow
    inputs: tuple[TensorInfo, ...]
    decisions: dict[str, Decision]
    workloads: dict[str, ConvWorkload]
    others: dict[str, OtherLayer]
    order: list[str]
    norms: dict[str, Norm] = field(default_factory=dict)


def import_passes(
    params: dict[str, tvm.runtime.Tensor], param_names: dict[str, str]
) -> list[tuple[str, ModulePass]]:
    """Names first, then values: binding the parameters makes them constants without a name."""
    return [
        ("label_layers", lambda module: label_layers(module, param_names)),
        ("bind_params", relax.transform.BindParams("main", params)),
        ("fold_constants", relax.transform.FoldConstant()),
        ("settle_layers", settle_layers),
    ]


def graph_passes(isa: VectorIsa, *, quantized: bool = False) -> list[tuple[str, ModulePass]]:
    """What makes few, large operators out of many small ones. quantized: values will be rounded
    between them: a batch norm in front of a convolution then stays there, as its result has one
    range for all channels, and its operand has not."""
    passes: list[tuple[str, ModulePass]] = [
        ("split_channel_scales", split_channel_scales),
        ("recognise_quantized", recognise_quantized),
        ("fold_affine", fold_affine),
        ("trim_taps", trim_taps),
        ("recognise_shapes", recognise_shapes),
        ("recognise_activations", recognise_activations),
        ("fuse_epilogue", fuse_epilogue),
        ("split_phases", split_phases),
        ("fuse_elementwise", fuse_elementwise),
        ("fold_input_affine", fold_input_affine),
        ("legalize_rest", lambda module: legalize_rest(module, codes=bool(isa.dot))),
    ]
    return [entry for entry in passes if not (quantized and entry[0] == "fold_input_affine")]


def integer_passes(isa: VectorIsa) -> list[tuple[str, ModulePass]]:
    """From values that are rounded to codes to operators of codes."""
    return [
        ("move_quantize", move_quantize),
        ("to_integers", lambda module: to_integers(module, isa)),
    ]


@dataclass(frozen=True, kw_only=True)
class CompiledNetworks:
    """A shared object, and how each of its networks was lowered."""

    lowered: tuple[Lowered, ...]
    library: EmittedLibrary


Choose = Callable[[Rewritten], Mapping[str, Choice]]
# A network of floats, and the same with roundings to codes (passes/ops.py) where it is to compute
# with them.
Quantize = Callable[[Rewritten], tvm.IRModule]


def compile_networks(
    networks: Sequence[ImportedModel],
    library: Path,
    *,
    target: Target,
    sparse: str,
    objects: KernelObjects,
    choose: Choose,
    dump: Callable[[int], Dump | None],
    quantize: Quantize | None = None,
    progress: Progress = silent,
) -> CompiledNetworks:
    """Compile networks that share their weights into one shared object, each with an entry point.

    Args:
        library: the file to write, in the folder of `objects`.
        sparse: "auto" (where faster), "off" or "always".
        choose: tuned schedules for a network, by layer name; the other layers get their defaults.
        dump: where the phases of network i go; None for nowhere.
        quantize: rounds the values of a network to codes; None: as the network says.

    Raises:
        TargetError: `quantize` for a target without instructions that multiply bytes.
        UnsupportedModelError: operators that nothing can take, all at once.
        CompileError: a kernel does not compile, or the linker failed. OSError: no space.
    """
    weights, lowered = WeightStore(), []
    for index, network in enumerate(networks):
        show = dump(index)
        rewritten = rewrite_model(
            network, isa=target.isa, sparse=sparse, quantize=quantize, dump=show
        )
        choices = choose(rewritten)
        entry = lower_model(rewritten, isa=target.isa, weights=weights, choices=choices)
        if show is not None:
            show(PROGRAM, entry.program.listing())
        lowered.append(entry)
    programs = [entry.program for entry in lowered]
    emitted = emit_library(programs, weights, library, objects=objects, progress=progress)
    return CompiledNetworks(lowered=tuple(lowered), library=emitted)


@named_defects()
def rewrite_model(
    network: ImportedModel,
    *,
    isa: VectorIsa,
    sparse: str,
    quantize: Quantize | None = None,
    dump: Dump | None = None,
) -> Rewritten:
    """Run all passes and decide about every layer. dump(phase, script) is called after each phase;
    quantize: rounds values of the network to codes, if the network does not say itself which.

    Raises:
        UnsupportedModelError: operators that nothing can take, all at once.
        TargetError: `quantize` for a target without instructions that multiply bytes.
    """
    if quantize is not None:
        check_integers(isa)
    params: dict[str, Any] = {
        name: tvm.runtime.tensor(np.ascontiguousarray(value))
        for name, value in network.params.items()
    }
    module = network.module
    graph_phases = graph_passes(isa, quantized=quantize is not None)
    codes: Mapping[str, WeightCodes] = {}
    for name, transform in [*import_passes(params, network.param_names), *graph_phases]:
        if name == "bind_params":
            codes = codes_of_layers(module, network.codes)
        if name == "fold_affine":
            norms = norm_statistics(module)
        if name == "legalize_rest":
            others, order = other_layers(module), layer_order(module)
            if has_codes(module):  # the file says what is rounded, and to what
                quantize = None
            if isa.dot and (quantize is not None or has_codes(module)):
                module = keep_codes(module, codes)
        module = _phase(module, name, transform, dump)
    if quantize is not None:
        floats = replace(_decided(module, network, others, order, isa, sparse), norms=norms)
        module = _phase(module, "quantize", lambda _: quantize(floats), dump)
    if has_codes(module):
        for name, transform in integer_passes(isa):
            module = _phase(module, name, transform, dump)
    return _decided(module, network, others, order, isa, sparse)


def _phase(
    module: tvm.IRModule, name: str, transform: ModulePass, dump: Dump | None
) -> tvm.IRModule:
    module = transform(module)
    if dump is not None:
        dump(name, module.script())
    return module


def _decided(
    module: tvm.IRModule,
    network: ImportedModel,
    others: dict[str, OtherLayer],
    order: list[str],
    isa: VectorIsa,
    sparse: str,
) -> Rewritten:
    graph = Dataflow(module["main"])
    check_shapes(graph)
    decisions = decide_layers(graph, isa, sparse)
    return Rewritten(
        module=module,
        graph=graph,
        inputs=network.inputs,
        decisions=decisions,
        workloads=conv_workloads(graph, decisions),
        others=others,
        order=order,
    )


@named_defects()
def lower_model(
    model: Rewritten,
    *,
    isa: VectorIsa,
    weights: WeightStore,
    choices: Mapping[str, Choice] | None = None,
) -> Lowered:
    """Lower to kernel calls. choices: tuned schedules by layer name; the other layers get their
    defaults."""
    decisions = apply_choices(model.decisions, choices or {})
    layers = {
        ops.attributes(call)["name"]: call for _, call in model.graph.calls(ops.CONV2D, ops.LINEAR)
    }
    program = Lowering(
        model.module, model.graph, len(model.inputs), isa, weights, decisions, choices
    ).run(LOWERING_RULES)
    join_steps(program, weights)
    taken = chosen(program, model.workloads, decisions, isa)
    return Lowered(
        program=program,
        decisions=decisions,
        layers=layers,
        workloads=model.workloads,
        choices=taken,
        others=model.others,
        order=model.order,
    )
