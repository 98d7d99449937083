"""`subpc.compile`: a model in, a CompiledModel out; the stages are in passes/pipeline.py."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subpc.compiler.debug_dump import dumper
from subpc.compiler.describe_library import describe_library, model_name
from subpc.compiler.precision import calibration_files, quantizer
from subpc.compiler.request import Request, check_options
from subpc.errors import SlowLayerWarning
from subpc.files import check_outputs
from subpc.frontend.one_at_a_time import one_at_a_time
from subpc.images.prepare import Preparation
from subpc.library import artifact
from subpc.library.report import FLOATS, INTEGERS, CompileReport, Metadata
from subpc.machine.linker import find_linker
from subpc.machine.target import Target, parse_target
from subpc.machine.threads import available_threads, resolve_threads
from subpc.model_files import arch_files, model_files
from subpc.progress import Progress, silent
from subpc.runtime.model import CompiledModel
from subpc.scratch import scratch_folder
from subpc.tuned_schedules.choose import AUTO, OFF, Tuned, TuningFact, find_tuning
from subpc.versions import versions

if TYPE_CHECKING:
    from subpc.frontend.imported_model import ImportedModel
    from subpc.passes.pipeline import CompiledNetworks, Rewritten
    from subpc.schedules.isa import VectorIsa
    from subpc.schedules.workload import Choice


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
    calibration: Any = None,
    preparation: Preparation | None = None,
    sparse: str = "auto",
    tuning: str | Path | None = "auto",
    tuning_any_cpu: bool = False,
    output: str | Path | None = None,
    progress: Progress | None = None,
    debug_dump: str | Path | None = None,
) -> CompiledModel:
    """Compile a network into one native library and load it. Calls from several threads take turns.

    Args:
        model: nn.Module, ExportedProgram, or the path of a .pt, .pt2, .pth, .safetensors or .onnx
            file.
        example_inputs: a tensor or a tuple of them; their shapes are compiled for.
        shapes: input shapes instead, one library function each.
        arch: architecture of a state dict, such as `torchvision:resnet50`.
        trust_pickle: allow pickled modules, which can run any code.
        part: compile this submodule alone (`backbone`), or several with commas between, each of
            which takes what the one before returns (`backbone,rpn.head`); inputs and shapes are
            those of the first.
        target: CPU to compile for.
        threads: threads to run with, as in `load`.
        precision: "float32", or "int8": convolutions and fully connected layers multiply bytes;
            "auto": each layer in int8 where it is predicted to be faster and the network's results
            stay what they are (docs/integers.md), else in float32.
        calibration: images that ranges of values are measured on for "int8" and "auto": a folder,
            `fashion-mnist[:FOLDER]`, a .npy file or an array (images, ...) of inputs; for several
            inputs an .npz file or a mapping, an array for each by its name. Without them the
            network itself, and images drawn at random, tell.
        preparation: how images of a folder become inputs.
        sparse: "auto" (where faster), "off" or "always".
        tuning: a database that `subpc tune` wrote, "auto" (the one that comes with subpc, where it
            knows this CPU) or "off" or None.
        tuning_any_cpu: take the database's schedules although they were measured on another CPU,
            target or number of threads.
        output: where to write the library; a temporary file without it (`CompiledModel.save` keeps
            it).
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
        calibration=calibration,
        preparation=preparation or Preparation(),
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


def compile_file(
    model: Any, output: str | Path, *, accept: Accept | None = None, **options: Any
) -> CompileReport:
    """Compile into the file `output` and load nothing, with the options of `compile`.

    accept: called with the report before anything is written; what it raises is raised, and nothing
    is written.
    """
    with scratch_folder("compile") as folder:
        request = Request(**{**options, "threads": resolve_threads(options.get("threads"))})
        return CompileReport(metadata=_compile(model, request, folder, Path(output), accept))


def _compile(
    model: Any, request: Request, folder: Path, path: Path, accept: Accept | None
) -> Metadata:
    """Compile `model` into the library `path`, with `folder` for temporary files."""
    check_options(request.precision, request.sparse, request.debug_dump, request.calibration)
    source = model_files(model) if isinstance(model, str | Path) else []
    check_outputs(
        [path],
        [
            *source,
            *arch_files(request.arch),
            *calibration_files(request.calibration),
            *([request.tuning] if request.tuning not in (None, AUTO, OFF) else []),
        ],
    )
    parsed = parse_target(request.target)
    tuned = find_tuning(
        request.tuning, parsed, request.threads, versions(), any_cpu=request.tuning_any_cpu
    )
    find_linker()
    from subpc.frontend.import_model import import_model
    from subpc.passes.codes import check_integers

    if request.precision == INTEGERS:
        check_integers(parsed.isa)
    if request.progress is not None:
        request.progress("import", 0, 1)
    options = {
        name: getattr(request, name)
        for name in ("shapes", "example_inputs", "arch", "trust_pickle", "part")
    }
    imported = import_model(model, **options)
    notes: list[str] = []
    compiled, facts = _build(imported, parsed, tuned, request, folder, notes)
    metadata = describe_library(
        imported,
        compiled,
        name=model_name(model, request.arch),
        target=parsed,
        tuned=any(fact.layers for fact in facts),
        notes=[*notes, *tuned.notes, *(fact.note for fact in facts if fact.note)],
    )
    if accept is not None:
        accept(CompileReport(metadata=metadata))
    artifact.write(path, compiled.library.path, compiled.library.weights, metadata)
    return metadata


@one_at_a_time()
def rewritten(
    model: Any,
    example_inputs: Any,
    *,
    isa: "VectorIsa",
    sparse: str,
    precision: str = FLOATS,
    notes: list[str] | None = None,
    **source: Any,
) -> "list[Rewritten]":
    """A model imported and rewritten, once for each set of input shapes: everything before the
    choice of schedules.

    precision: as for compile, with ranges of values that the network itself tells; notes: what the
    import says is added to it; source: `shapes`, `arch`, `trust_pickle` and `part`, as for
    import_model.
    """
    from subpc.frontend.import_model import import_model
    from subpc.passes.codes import check_integers
    from subpc.passes.pipeline import rewrite_model

    check_options(precision, sparse, None)
    if precision == INTEGERS:
        check_integers(isa)
    imported = import_model(model, example_inputs=example_inputs, **source)
    if notes is not None:
        notes += imported[0].notes
    said = notes if notes is not None else []
    quantize = quantizer(precision, None, Preparation(), said, None, isa)
    return [rewrite_model(entry, isa=isa, sparse=sparse, quantize=quantize) for entry in imported]


def _build(
    imported: "Sequence[ImportedModel]",
    target: Target,
    tuned: Tuned,
    request: Request,
    folder: Path,
    notes: list[str],
) -> "tuple[CompiledNetworks, list[TuningFact]]":
    """The shared object, with what became of tuned schedules in each of the networks.

    notes: what there is to say of calibration is added to it.
    """
    from subpc.passes.kernel_objects import KernelObjects
    from subpc.passes.pipeline import Rewritten, compile_networks

    facts = []

    def choose(network: Rewritten) -> "Mapping[str, Choice]":
        choices, fact = tuned.choose(network.workloads, target.isa, request.sparse)
        facts.append(fact)
        return choices

    with ThreadPoolExecutor(available_threads()) as pool:
        compiled = compile_networks(
            imported,
            folder / "linked.so",
            target=target,
            sparse=request.sparse,
            objects=KernelObjects(folder, target, pool),
            choose=choose,
            dump=partial(dumper, request.debug_dump),
            quantize=quantizer(
                request.precision,
                request.calibration,
                request.preparation,
                notes,
                request.progress,
                target.isa,
            ),
            progress=request.progress or silent,
        )
    return compiled, facts
