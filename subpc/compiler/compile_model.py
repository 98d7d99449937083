"""`subpc.compile`: a model in, a CompiledModel out; the stages are in passes/pipeline.py."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subpc.compiler.debug_dump import PROGRAM, dumper
from subpc.compiler.request import Progress, Request, check_options
from subpc.errors import CompileError, SlowLayerWarning, SubpcError
from subpc.files import check_outputs
from subpc.frontend.one_at_a_time import one_at_a_time
from subpc.library import artifact
from subpc.library.block_map import pack_blocks
from subpc.library.report import CompileReport, FunctionInfo, LayerReport, Metadata, StepInfo, TensorInfo
from subpc.machine.linker import find_linker, link
from subpc.machine.target import Target, parse_target
from subpc.machine.threads import available_threads, resolve_threads
from subpc.model_files import arch_files, model_files
from subpc.runtime.model import CompiledModel
from subpc.scratch import scratch_folder
from subpc.tuned_schedules.choose import AUTO, OFF, Tuned, find_tuning
from subpc.versions import versions

if TYPE_CHECKING:
    from subpc.frontend.imported_model import ImportedModel
    from subpc.passes.build_library import BuiltLibrary
    from subpc.passes.pipeline import Dump, Lowered, Rewritten
    from subpc.passes.program import Program, Step
    from subpc.schedules.isa import VectorIsa

# What a report shows as the kernel of a layer that is computed together with the one before it.
JOINED = "joined to the layer before"


Accept = Callable[[CompileReport], None]


@one_at_a_time()
def compile(
    model: Any,
    example_inputs: Any = None,
    *,
    shapes: Sequence[tuple[int, ...]] | None = None,
    arch: str | None = None,
    trust_pickle: bool = False,
    part: str | None = None,
    target: str = "llvm -mcpu=native",
    threads: int | None = None,
    precision: str = "float32",
    sparse: str = "auto",
    tuning: str | Path | None = "auto",
    tuning_any_cpu: bool = False,
    output: str | Path | None = None,
    progress: Progress | None = None,
    debug_dump: str | Path | None = None,
) -> CompiledModel:
    """Compile a network into one native library and load it. Calls from several threads take turns.

    Args:
        model: nn.Module, ExportedProgram, or the path of a .pt, .pt2, .pth, .safetensors or .onnx file.
        example_inputs: a tensor or a tuple of them; their shapes are compiled for.
        shapes: input shapes instead, one library function each.
        arch: architecture of a state dict, such as `torchvision:resnet50`.
        trust_pickle: allow pickled modules, which can run any code.
        part: compile this submodule alone (`backbone`), or several with commas between, each of which takes what the one before returns
            (`backbone,rpn.head`); inputs and shapes are those of the first.
        target: CPU to compile for.
        threads: threads to run with, as in `load`.
        precision: "float32".
        sparse: "auto" (where faster), "off" or "always".
        tuning: a database that `subpc tune` wrote, "auto" (the one that comes with subpc, where it knows this CPU) or "off" or None.
        tuning_any_cpu: take the database's schedules although they were measured on another CPU, target or number of threads.
        output: where to write the library; a temporary file without it (`CompiledModel.save` keeps it).
        progress: called with (phase, done, total).
        debug_dump: folder for the program after each phase.

    Raises:
        SubpcError: ConfigError, ModelFileError, UnsupportedModelError, TargetError or CompileError.
    """
    request = Request(
        example_inputs=example_inputs,
        shapes=shapes,
        arch=arch,
        trust_pickle=trust_pickle,
        part=part,
        target=target,
        threads=resolve_threads(threads),
        precision=precision,
        sparse=sparse,
        tuning=tuning,
        tuning_any_cpu=tuning_any_cpu,
        progress=progress,
        debug_dump=debug_dump,
    )
    with scratch_folder("compile") as folder:
        path = Path(output) if output is not None else folder / "model.so"
        _compile(model, request, folder, path, None)
        compiled = CompiledModel(artifact.open_artifact(path), threads=request.threads)
    from subpc.frontend.imported_model import fallback_warnings

    for text in fallback_warnings(compiled.report.layers):
        warnings.warn(text, SlowLayerWarning, stacklevel=2)
    return compiled


def compile_file(model: Any, output: str | Path, *, accept: Accept | None = None, **options: Any) -> CompileReport:
    """Compile into the file `output` and load nothing, with the options of `compile`.

    accept: called with the report before anything is written; what it raises is raised, and nothing is written.
    """
    with scratch_folder("compile") as folder:
        request = Request(**{**options, "threads": resolve_threads(options.get("threads"))})
        return CompileReport(metadata=_compile(model, request, folder, Path(output), accept))


def _compile(model: Any, request: Request, folder: Path, path: Path, accept: Accept | None) -> Metadata:
    """Compile `model` into the library `path`, with `folder` for temporary files."""
    check_options(request.precision, request.sparse, request.debug_dump)
    source = model_files(model) if isinstance(model, str | Path) else []
    check_outputs([path], [*source, *arch_files(request.arch), *([request.tuning] if request.tuning not in (None, AUTO, OFF) else [])])
    parsed = parse_target(request.target)
    tuned = find_tuning(request.tuning, parsed, request.threads, versions(), any_cpu=request.tuning_any_cpu)
    find_linker()
    from subpc.frontend.import_model import import_model

    if request.progress is not None:
        request.progress("import", 0, 1)
    options = {name: getattr(request, name) for name in ("shapes", "example_inputs", "arch", "trust_pickle", "part")}
    imported = import_model(model, **options)
    return _build(imported, parsed, tuned, request, folder, path, _model_name(model, request.arch), accept)


@one_at_a_time()
def rewritten(
    model: Any,
    example_inputs: Any,
    *,
    isa: "VectorIsa",
    sparse: str,
    notes: list[str] | None = None,
    **source: Any,
) -> "list[Rewritten]":
    """A model imported and rewritten, once for each set of input shapes: everything before the choice of schedules.

    notes: what the import says is added to it; source: `shapes`, `arch`, `trust_pickle` and `part`, as for import_model.
    """
    from subpc.frontend.import_model import import_model

    check_options("float32", sparse, None)
    imported = import_model(model, example_inputs=example_inputs, **source)
    if notes is not None:
        notes += imported[0].notes
    return [_rewrite(entry, isa, sparse, None) for entry in imported]


def _rewrite(model: "ImportedModel", isa: "VectorIsa", sparse: str, dump: "Dump | None") -> "Rewritten":
    import tvm

    from subpc.passes.pipeline import rewrite_model

    params = {key: tvm.runtime.tensor(np.ascontiguousarray(value)) for key, value in model.params.items()}
    options: dict[str, Any] = {"n_inputs": len(model.input_names), "isa": isa, "sparse": sparse, "dump": dump}
    with _named_defects():
        return rewrite_model(model.module, params, model.param_names, **options)


def _build(
    imported: "Sequence[ImportedModel]",
    target: Target,
    tuned: Tuned,
    request: Request,
    folder: Path,
    path: Path,
    name: str,
    accept: Accept | None,
) -> Metadata:
    from subpc.frontend.imported_model import fallback_warnings, weight_warnings
    from subpc.passes.build_library import build_library
    from subpc.passes.pipeline import lower_model
    from subpc.passes.program import WeightStore

    weights = WeightStore()
    lowered, facts = [], []
    for index, model in enumerate(imported):
        dump = dumper(request.debug_dump, index)
        network = _rewrite(model, target.isa, request.sparse, dump)
        choices, fact = tuned.choose(network.workloads, target.isa, request.sparse)
        facts.append(fact)
        with _named_defects():
            lowered.append(lower_model(network, isa=target.isa, weights=weights, choices=choices))
        if dump is not None:
            dump(PROGRAM, lowered[-1].program.listing())
    blob = weights.blob()
    built = build_library(
        [entry.program for entry in lowered],
        weight_floats=blob.size,
        target=target.tvm_target(),
        isa=target.isa,
        folder=folder,
        workers=available_threads(),
        progress=request.progress,
    )
    shared = folder / "linked.so"
    link(built.objects, shared)
    functions = tuple(
        _function_info(model, entry, built, index) for index, (model, entry) in enumerate(zip(imported, lowered, strict=True))
    )
    layers = _layer_reports(lowered[0], imported[0])
    found = (*weight_warnings(imported[0].params, imported[0].param_names), *fallback_warnings(layers))
    metadata = Metadata(
        model=name,
        target=str(target),
        features=target.features,
        precision="float32",
        tuned=any(fact.layers for fact in facts),
        functions=functions,
        layers=layers,
        warnings=found,
        notes=(*(note for note in imported[0].notes if note not in found), *tuned.notes, *(f.note for f in facts if f.note)),
        versions=versions(),
        compression=imported[0].facts,
    )
    if accept is not None:
        accept(CompileReport(metadata=metadata))
    artifact.write(path, shared, blob, metadata)
    return metadata


@contextmanager
def _named_defects() -> Iterator[None]:
    """What a pass does not expect becomes an error that says what to do."""
    try:
        yield
    except (SubpcError, MemoryError):
        raise
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CompileError(
            f"the network cannot be lowered to kernels: {first[:200]}\n"
            "Please report it with the model; --debug-dump FOLDER writes the program after each phase."
        ) from error


def _function_info(model: "ImportedModel", lowered: "Lowered", built: "BuiltLibrary", index: int) -> FunctionInfo:
    program = lowered.program
    return FunctionInfo(
        symbol=built.symbols[index],
        inputs=tuple(TensorInfo(name=n, shape=s, dtype=d) for n, (s, d) in zip(model.input_names, program.inputs, strict=True)),
        outputs=tuple(TensorInfo(name=n, shape=s, dtype=d) for n, (s, d) in zip(model.output_names, program.outputs, strict=True)),
        workspace_floats=built.workspace_floats[index],
        steps=tuple(_step_info(program, step, built, index) for step in program.steps),
    )


def _step_info(program: "Program", step: "Step", built: "BuiltLibrary", index: int) -> StepInfo:
    """A kernel call; one that is joined to the step before has its work there."""
    from subpc.passes.step_result import step_result
    from subpc.passes.traffic import step_bytes
    from subpc.schedules.kernel import symbol_of

    return StepInfo(
        layer=step.layer,
        kernel="" if step.joined else symbol_of(step.kernel),
        family=JOINED if step.joined else step.kernel.family,
        flops=0 if step.joined else step.kernel.flops,
        bytes=0 if step.joined else step_bytes(program, step, built.operand_bytes[step.kernel]),
        result=step_result(step, built.offsets[index]),
    )


def _layer_reports(lowered: "Lowered", model: "ImportedModel") -> tuple[LayerReport, ...]:
    from subpc.passes.layer_report import layer_report

    def complete(name: str) -> LayerReport:
        found = lowered.decisions[name].found if name in lowered.decisions else None
        bits = model.packed[name].bits if name in model.packed else 32
        return replace(layer_report(lowered, name), blocks=pack_blocks(found.kept) if found else "", bits=bits)

    return tuple(map(complete, lowered.order))


def _model_name(model: Any, arch: str | None) -> str:
    if isinstance(model, str | Path):
        return Path(model).stem
    return arch or type(model).__name__
