"""Fixtures for the run side: a small real library, built once, without the compiler."""

import os
import signal

# A shell that starts jobs in the background has them ignore SIGINT, and what they start ignores it,
# too: some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # as many processes as CPUs: more threads in each would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subpc.library import artifact
from subpc.library.report import FunctionInfo, LayerReport, Metadata, StepInfo, TensorInfo
from subpc.machine.linker import link
from tests.pairs import representatives

SIDE = 16


@pytest.hookimpl(tryfirst=True)  # before those that were not asked for are taken out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is marked `pairs`, all but few combinations in which any two values meet are
    slow."""
    tests = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairs") is not None:
            tests[item.function].append(item)
    for combined in tests.values():
        texts = [
            {name: repr(value) for name, value in item.callspec.params.items()} for item in combined
        ]
        quick = representatives(texts)
        for place, item in enumerate(combined):
            if place not in quick:
                item.add_marker(pytest.mark.slow)


def expected(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What the toy library computes: three steps, of which the middle one reads its input from the
    workspace."""
    return np.maximum((x + weights[0]) * weights[1], 0).astype(np.float32)


def _kernel(symbol: str, size: int, step: int, rectify: bool) -> Any:
    from tvm import tirx
    from tvm.tirx.script import builder as T

    from subpc.schedules.kernel import kernel_builder
    from subpc.schedules.operand import floats

    with kernel_builder(symbol, {"x": floats(size), "w": floats(2), "y": floats(size)}) as frame:
        x, w, y = frame.buffers
        with T.parallel(0, size) as i:
            value = [
                lambda: x[i] + w[0],
                lambda: x[i] * w[1],
                lambda: (tirx.max if rectify else tirx.min)(x[i], T.float32(0)),
            ][step]()
            T.buffer_store(y, value, [i])
    return frame.func


def _main(symbol: str, kernels: list[str], shape: tuple[int, ...]) -> Any:
    import tvm
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    size = int(np.prod(shape))
    zero = [0] * len(shape)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        x, y = T.arg("x", T.buffer(shape, "float32")), T.arg("y", T.buffer(shape, "float32"))
        weights, space = (
            T.arg("weights", T.buffer((2,), "float32")),
            T.arg("space", T.buffer((2 * size,), "float32")),
        )
        first, last = T.arg("first", T.int32()), T.arg("last", T.int32())
        T.func_attr({"tirx.noalias": True, "global_symbol": symbol})
        chain = [
            T.address_of(x[tuple(zero)]),
            T.address_of(space[0]),
            T.address_of(space[size]),
            T.address_of(y[tuple(zero)]),
        ]
        for i, kernel in enumerate(kernels):
            with T.If(tirx.all(first <= i, i < last)), T.Then():
                T.evaluate(
                    tirx.call_extern(
                        "int32", kernel, chain[i], T.address_of(weights[0]), chain[i + 1]
                    )
                )
    return tvm.IRModule({symbol: builder.get()})


def _build_object(folder: Path, shapes: list[tuple[int, ...]], rectify: bool = True) -> Path:
    import tvm

    target = tvm.target.Target({"kind": "llvm"})
    objects = []
    for batch, shape in enumerate(shapes):
        names = [f"toy_{batch}_{step}" for step in range(3)]
        modules = [
            tvm.IRModule({n: _kernel(n, int(np.prod(shape)), s, rectify)})
            for s, n in enumerate(names)
        ]
        for name, module in zip(
            [*names, f"toy_{batch}"], [*modules, _main(f"toy_{batch}", names, shape)], strict=True
        ):
            objects.append(folder / f"{name}.o")
            tvm.tirx.build(module, target=target).write_to_file(str(objects[-1]))
    output = folder / "toy.so"
    link(objects, output)
    return output


def _layer(name: str, **changes: Any) -> LayerReport:
    facts = {
        "kind": "conv",
        "shape": (16, 16, 3, 3),
        "stride": (1, 1),
        "groups": 1,
        "pattern": "1x16 uniform",
        "n": 16,
    }
    facts |= {
        "sparsity": 0.75,
        "kernel": "conv_sparse",
        "sparse": True,
        "reason": "",
        "expected_gain": 3.0,
    }
    facts |= {"flops_dense": 4000, "flops_useful": 1000, "bytes_dense": 9216, "bytes_packed": 2400}
    return LayerReport(name=name, **(facts | changes))


def toy_metadata(shapes: list[tuple[int, ...]], features: tuple[str, ...] = ()) -> Metadata:
    """Metadata of the toy library."""
    functions = tuple(
        FunctionInfo(
            symbol=f"toy_{batch}",
            inputs=(TensorInfo(name="image", shape=shape),),
            outputs=(TensorInfo(name="scores", shape=shape),),
            workspace_floats=2 * int(np.prod(shape)),
            steps=tuple(
                StepInfo(
                    layer=layer,
                    kernel=f"toy_{batch}_{step}",
                    family="toy",
                    flops=int(np.prod(shape)),
                    bytes=8 * int(np.prod(shape)),
                )
                for step, layer in enumerate(["layer1.conv1", "layer1.conv1", "relu"])
            ),
        )
        for batch, shape in enumerate(shapes)
    )
    dense = {"sparse": False, "pattern": "dense", "n": 0, "sparsity": 0.0, "kernel": "conv_dense"}
    layers = (
        _layer("layer1.conv1"),
        _layer("stem", **dense, reason="below threshold: 0 % < 30 %"),
        _layer("layer2.conv1", **dense, groups=4, reason="grouped"),
    )
    return Metadata(
        model="toy",
        target="llvm",
        features=features,
        precision="float32",
        tuned=False,
        functions=functions,
        layers=layers,
    )


@pytest.fixture(scope="session")
def toy_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy library's shared object: one function for batch 1, one for batch 2."""
    return _build_object(tmp_path_factory.mktemp("toy"), toy_shapes())


@pytest.fixture(scope="session")
def other_toy(tmp_path_factory: pytest.TempPathFactory, toy_weights: np.ndarray) -> Path:
    """A library with the toy's functions and weights but other code: what the toy sets to zero is
    all that it keeps."""
    folder = tmp_path_factory.mktemp("other")
    artifact.write(
        folder / "other.so",
        _build_object(folder, toy_shapes(), False),
        toy_weights,
        toy_metadata(toy_shapes()),
    )
    return folder / "other.so"


def toy_shapes() -> list[tuple[int, ...]]:
    """The input shapes of the toy library."""
    return [(1, 3, SIDE, SIDE), (2, 3, SIDE, SIDE)]


@pytest.fixture(scope="session")
def toy_weights() -> np.ndarray:
    """The toy library's weights."""
    return np.array([0.5, -2.0], np.float32)


@pytest.fixture(scope="session")
def make_toy(toy_object: Path, toy_weights: np.ndarray) -> Callable[..., Path]:
    """Writes the toy library to a path; `features` are the CPU flags that it claims to need."""

    def make(path: Path, features: tuple[str, ...] = (), weights: np.ndarray = toy_weights) -> Path:
        artifact.write(path, toy_object, weights, toy_metadata(toy_shapes(), features))
        return path

    return make


@pytest.fixture(scope="session")
def toy(make_toy: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy library on disk."""
    return make_toy(tmp_path_factory.mktemp("library") / "toy.so")


@pytest.fixture(scope="session")
def toy_expected(toy_weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The right answer of the toy library."""
    return lambda x: expected(x, toy_weights)
