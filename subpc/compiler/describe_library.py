"""What a library says about itself: its functions, their kernel calls, and what became of each
layer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.library.block_map import pack_blocks
from subpc.library.report import (
    INTEGERS,
    FunctionInfo,
    LayerReport,
    Metadata,
    StepInfo,
    TensorInfo,
    precision_of,
)
from subpc.machine.target import Target
from subpc.versions import versions

if TYPE_CHECKING:
    from subpc.frontend.imported_model import ImportedModel
    from subpc.passes.emit_library import EntryPoint
    from subpc.passes.pipeline import CompiledNetworks, Lowered
    from subpc.passes.plan_memory import MemoryPlan
    from subpc.passes.program import Program, Step

# What a report shows as the kernel of a layer that is computed together with the one before it.
JOINED = "joined to the layer before"


def describe_library(
    imported: "Sequence[ImportedModel]",
    compiled: "CompiledNetworks",
    *,
    name: str,
    target: Target,
    tuned: bool,
    notes: Sequence[str],
) -> Metadata:
    """The metadata of a library. notes: beside those of the import; tuned: whether schedules
    were."""
    from subpc.frontend.imported_model import fallback_warnings, weight_warnings

    first = imported[0]
    layers = _layer_reports(compiled.lowered[0], first)
    precision = precision_of(layers)
    if precision == INTEGERS:
        notes = [f"{precision}: {target.isa.integer_path}, level {target.isa.name}", *notes]
    found = (*weight_warnings(first.params, first.param_names), *fallback_warnings(layers))
    return Metadata(
        model=name,
        target=str(target),
        features=target.features,
        precision=precision,
        tuned=tuned,
        functions=tuple(
            _function_info(model, lowered.program, entry)
            for model, lowered, entry in zip(
                imported, compiled.lowered, compiled.library.entries, strict=True
            )
        ),
        layers=layers,
        warnings=found,
        notes=(*(note for note in first.notes if note not in found), *notes),
        versions=versions(),
        compression=first.facts,
    )


def model_name(model: Any, arch: str | None) -> str:
    """The name that a report shows for what was compiled."""
    if isinstance(model, str | Path):
        return Path(model).stem
    return arch or type(model).__name__


def _function_info(model: "ImportedModel", program: "Program", entry: "EntryPoint") -> FunctionInfo:
    return FunctionInfo(
        symbol=entry.symbol,
        inputs=_tensors(model.input_names, program.inputs),
        outputs=_tensors(model.output_names, program.outputs),
        workspace_floats=entry.plan.floats,
        steps=tuple(_step_info(program, step, entry.plan) for step in program.steps),
    )


def _tensors(
    names: Sequence[str], tensors: Sequence[tuple[tuple[int, ...], str]]
) -> tuple[TensorInfo, ...]:
    described = zip(names, tensors, strict=True)
    return tuple(TensorInfo(name=name, shape=s, dtype=d) for name, (s, d) in described)


def _step_info(program: "Program", step: "Step", plan: "MemoryPlan") -> StepInfo:
    """A kernel call; one that is joined to the step before has its work there."""
    from subpc.passes.step_result import step_result
    from subpc.passes.traffic import step_bytes
    from subpc.schedules.kernel import symbol_of

    return StepInfo(
        layer=step.layer,
        kernel="" if step.joined else symbol_of(step.kernel),
        family=JOINED if step.joined else step.kernel.family,
        flops=0 if step.joined else step.kernel.flops,
        bytes=0 if step.joined else step_bytes(program, step),
        result=step_result(step, plan),
    )


def _layer_reports(lowered: "Lowered", model: "ImportedModel") -> tuple[LayerReport, ...]:
    from subpc.passes.layer_report import layer_report

    def complete(name: str) -> LayerReport:
        found = lowered.decisions[name].found if name in lowered.decisions else None
        bits = model.packed[name].bits if name in model.packed else 32
        blocks = pack_blocks(found.kept) if found else ""
        return replace(layer_report(lowered, name), blocks=blocks, bits=bits)

    return tuple(map(complete, lowered.order))
