"""A profile report of a network that does not exist, with everything that a page can show and a
name that tries to run."""

from dataclasses import replace

import numpy as np

from subpc.bench.report import BenchReport, EngineResult
from subpc.library.block_map import pack_blocks
from subpc.library.report import FunctionInfo, LayerReport, Metadata, StepInfo, TensorInfo
from subpc.machine.timing import summarize
from subpc.profile_page.page import PageInput
from subpc.profiling.probes import MachinePeak
from subpc.profiling.profile import Profile, by_layer

HOSTILE = "<script>alert(1)</script>"
NAMES = ("stem", HOSTILE, "</script><img src=x onerror=alert(2)>", "layer1.conv2")
TIMES = (0.5, 0.25, 2.0, 1.0)


def layer(name: str, n: int) -> LayerReport:
    """A convolution from 8 to 32 channels, half of whose blocks are kept."""
    kept = np.indices((32 // n, 8)).sum(axis=0) % 2 == 0 if n else None
    facts = {
        "kind": "conv",
        "shape": (32, 8, 3, 3),
        "stride": (1, 1),
        "groups": 1,
        "kernel": "bsr_conv" if n else "dense_conv",
    }
    sizes = {"flops_dense": 2000, "flops_useful": 1000, "bytes_dense": 9216, "bytes_packed": 4800}
    pattern = {
        "pattern": f"1x{n} uniform" if n else "dense",
        "n": n,
        "sparsity": 0.5 if n else 0.0,
        "sparse": bool(n),
    }
    more = {
        "expected_gain": 1.5,
        "reason": "" if n else HOSTILE,
        "blocks": pack_blocks(kept) if kept is not None else "",
    }
    return LayerReport(name=name, **facts, **sizes, **pattern, **more)


def page_input(*, bench: bool = True, peak: bool = True) -> PageInput:
    """Four layers; the second and the third have hostile names."""
    layers = tuple(layer(name, n) for name, n in zip(NAMES, (0, 16, 8, 16), strict=True))
    steps = tuple(
        StepInfo(layer=name, kernel=f"k{i}", family="bsr_conv_f32", flops=10**8, bytes=10**6)
        for i, name in enumerate(NAMES)
    )
    image = TensorInfo(name="image", shape=(1, 8, 16, 16))
    function = FunctionInfo(
        symbol="f", inputs=(image,), outputs=(image,), workspace_floats=1000, steps=steps
    )
    metadata = Metadata(
        model=HOSTILE,
        target="llvm",
        features=(),
        precision="float32",
        tuned=False,
        functions=(function,),
        layers=layers,
        compression={"method": "udfc", "top1": "91.5", HOSTILE: HOSTILE},
    )
    machine = MachinePeak(
        cpu=HOSTILE, threads=2, lanes=16, gflops=500.0, cache_gbytes=400.0, memory_gbytes=50.0
    )
    rows = by_layer(
        steps, TIMES, layers=layers, peak=machine if peak else None, imbalance={"stem": 1.25}
    )
    profile = Profile(
        layers=rows,
        total_ms=3.7,
        steps_ms=3.75,
        runs=20,
        threads=2,
        peak=machine if peak else None,
        notes=(HOSTILE,),
    )
    return PageInput(
        metadata=metadata,
        profile=profile,
        file_bytes=12_345_678,
        bench=comparison() if bench else None,
    )


def in_integers(given: PageInput) -> PageInput:
    """The same with all layers in int8 but the last."""
    peak = given.profile.peak
    assert peak is not None
    peak = replace(peak, integer_gops=2000.0)
    *integers, last = given.metadata.layers
    layers = (
        *(replace(layer, precision="int8") for layer in integers),
        replace(last, why_float="input: not quantized", reason=""),
    )
    steps = given.metadata.functions[0].steps
    rows = by_layer(steps, TIMES, layers=layers, peak=peak)
    return replace(
        given,
        metadata=replace(given.metadata, precision="int8", layers=layers),
        profile=replace(given.profile, layers=rows, peak=peak),
    )


def comparison() -> BenchReport:
    """subpc at 2 ms, another engine at 6 ms, and one that failed with a hostile message."""
    ours = EngineResult(engine="subpc", version="1", timing=summarize([2.0] * 40))
    engines = (
        ours,
        replace(ours, engine="onnxruntime", timing=summarize([6.0] * 40), difference=0.0),
    )
    failed = EngineResult(engine="openvino", version="2", failure=HOSTILE)
    facts = {
        "headline": "x",
        "cpu": "a CPU",
        "threads": 2,
        "shapes": ((1, 8, 16, 16),),
        "runs": 40,
        "warmup": 10,
        "rounds": 4,
    }
    return BenchReport(**facts, idle_cpus=2.0, engines=(*engines, failed))
