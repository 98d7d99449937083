"""The whole compile in one place: from an imported Relax module to a program of kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from subpc.errors import UnsupportedModelError
from subpc.passes import ops
from subpc.passes.dataflow import Dataflow
from subpc.passes.decide_layers import Decision, decide_layers
from subpc.passes.fold_affine import fold_affine
from subpc.passes.fold_input_affine import fold_input_affine
from subpc.passes.fuse_elementwise import fuse_elementwise
from subpc.passes.fuse_epilogue import fuse_epilogue
from subpc.passes.join_steps import join_steps
from subpc.passes.label_layers import label_layers, settle_layers
from subpc.passes.legalize_rest import legalize_rest
from subpc.passes.lower import Lowering
from subpc.passes.lower_conv import lower_conv2d
from subpc.passes.lower_elementwise import lower_elementwise
from subpc.passes.lower_fallback import lower_call_tir
from subpc.passes.lower_linear import lower_linear
from subpc.passes.lower_planes import lower_concat, lower_global_pool, lower_pool2d, lower_view
from subpc.passes.other_layers import OtherLayer, layer_order, other_layers
from subpc.passes.program import Program, WeightStore
from subpc.passes.recognise_activations import recognise_activations
from subpc.passes.recognise_shapes import recognise_shapes
from subpc.passes.trim_taps import trim_taps
from subpc.passes.workloads import apply_choices, chosen, conv_workloads
from subpc.schedules.isa import VectorIsa
from subpc.schedules.workload import Choice, ConvWorkload

ModulePass = Callable[[tvm.IRModule], tvm.IRModule]
Dump = Callable[[str, str], None]

LOWERING_RULES = {
    ops.CONV2D: lower_conv2d,
    ops.LINEAR: lower_linear,
    ops.POOL2D: lower_pool2d,
    ops.GLOBAL_POOL: lower_global_pool,
    ops.ELEMENTWISE: lower_elementwise,
    ops.CONCAT: lower_concat,
    ops.VIEW: lower_view,
    "relax.call_tir": lower_call_tir,
}


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
    """A network as few, large operators, with a decision for each layer: what can be lowered again and again with other schedules."""

    module: tvm.IRModule
    graph: Dataflow
    n_inputs: int
    decisions: dict[str, Decision]
    workloads: dict[str, ConvWorkload]
    others: dict[str, OtherLayer]
    order: list[str]


def import_passes(params: dict[str, tvm.runtime.Tensor], param_names: dict[str, str]) -> list[tuple[str, ModulePass]]:
    """Names first, then values: binding the parameters makes them constants without a name."""
    return [
        ("label_layers", lambda module: label_layers(module, param_names)),
        ("bind_params", relax.transform.BindParams("main", params)),
        ("fold_constants", relax.transform.FoldConstant()),
        ("settle_layers", settle_layers),
    ]


def graph_passes() -> list[tuple[str, ModulePass]]:
    """What makes few, large operators out of many small ones."""
    return [
        ("fold_affine", fold_affine),
        ("trim_taps", trim_taps),
        ("recognise_shapes", recognise_shapes),
        ("recognise_activations", recognise_activations),
        ("fuse_epilogue", fuse_epilogue),
        ("fuse_elementwise", fuse_elementwise),
        ("fold_input_affine", fold_input_affine),
        ("legalize_rest", legalize_rest),
    ]


def rewrite_model(
    module: tvm.IRModule,
    params: dict[str, tvm.runtime.Tensor],
    param_names: dict[str, str],
    *,
    n_inputs: int,
    isa: VectorIsa,
    sparse: str,
    dump: Dump | None = None,
) -> Rewritten:
    """Run all passes and decide about every layer. dump(phase, script) is called after each phase.

    Raises:
        UnsupportedModelError: operators that nothing can take, all at once.
    """
    for name, transform in [*import_passes(params, param_names), *graph_passes()]:
        if name == "legalize_rest":
            others, order = other_layers(module), layer_order(module)
        module = transform(module)
        if dump is not None:
            dump(name, module.script())
    graph = Dataflow(module["main"])
    _check_shapes(graph)
    decisions = decide_layers(graph, isa, sparse)
    workloads = conv_workloads(graph, decisions)
    return Rewritten(module=module, graph=graph, n_inputs=n_inputs, decisions=decisions, workloads=workloads, others=others, order=order)


def lower_model(model: Rewritten, *, isa: VectorIsa, weights: WeightStore, choices: Mapping[str, Choice] | None = None) -> Lowered:
    """Lower to kernel calls. choices: tuned schedules by layer name; the other layers get their defaults."""
    decisions = apply_choices(model.decisions, choices or {})
    layers = {ops.attributes(call)["name"]: call for _, call in model.graph.calls(ops.CONV2D, ops.LINEAR)}
    program = Lowering(model.module, model.graph, model.n_inputs, isa, weights, decisions, choices).run(LOWERING_RULES)
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


def _check_shapes(graph: Dataflow) -> None:
    dynamic = [var.name for var in graph.live() if not _static(var)]
    if dynamic:
        raise UnsupportedModelError(f"shapes that depend on data are not supported: {', '.join(dynamic[:5])}; export with fixed shapes")


def _static(var: relax.Var) -> bool:
    types: Sequence[relax.Type] = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
    return all(isinstance(extent, tvm.tirx.IntImm) for t in types for extent in (t.shape or ()))
