"""Build one kernel into a shared library, call it with NumPy arrays, and move arrays in and out of
a tensor layout."""

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from subpc.library.shared_library import Library
from subpc.machine.cpu import missing_features
from subpc.machine.target import parse_target
from subpc.machine.worker_pool import start_workers, use_threads
from subpc.schedules.isa import AVX2, AVX2_VNNI, AVX512, AVX512_VNNI, GENERIC, VectorIsa
from subpc.schedules.kernel import Kernel, symbol_of
from subpc.schedules.layout import Frame, TensorLayout, compact_frame, halo_frame
from subpc.schedules.quantization import LARGEST_CODE, Quantization

# Levels that differ in their floating-point code, and those that differ in how they multiply bytes;
# the code for AVX-VNNI in the encoding of AVX-512, too, for CPUs that have no other.
ISAS = {isa.name: isa for isa in (AVX512, AVX2, GENERIC)}
AVX512VL_VNNI = replace(AVX2_VNNI, name="avx512vl_vnni")
DOT_ISAS = {isa.name: isa for isa in (AVX512_VNNI, AVX512, AVX512VL_VNNI, AVX2_VNNI, AVX2)}
MCPU = {
    AVX512_VNNI: "cascadelake",
    AVX512: "skylake-avx512",
    AVX2_VNNI: "alderlake",
    AVX512VL_VNNI: "cascadelake",
    AVX2: "haswell",
    GENERIC: None,
}
_GUARD = 64  # floats on either side of every argument that a kernel must leave alone


@functools.cache
def cpu_supports(isa: VectorIsa) -> bool:
    """Whether this machine can run code for the given level."""
    mcpu = MCPU[isa]
    return not missing_features(parse_target(f"llvm -mcpu={mcpu}" if mcpu else "llvm").features)


def target_of(isa: VectorIsa) -> tvm.target.Target:
    mcpu = MCPU[isa]
    return tvm.target.Target({"kind": "llvm"} | ({"mcpu": mcpu} if mcpu else {}))


def assembly(kernel: Kernel, isa: VectorIsa) -> str:
    func = kernel.prim_func("kernel", isa)
    return str(
        tvm.tirx.build(tvm.IRModule({"kernel": func}), target=target_of(isa)).inspect_source("s")
    )


@functools.lru_cache(maxsize=64)
def build(kernel: Any, isa: VectorIsa = AVX512) -> Any:
    """The kernel as a C function."""
    symbol = symbol_of(kernel)
    module = tvm.tirx.build(
        tvm.IRModule({symbol: kernel.prim_func(symbol, isa)}), target=target_of(isa)
    )
    with tempfile.TemporaryDirectory() as folder:
        objects, library = f"{folder}/k.o", f"{folder}/k.so"
        module.write_to_file(objects)
        # libc only: a call into libm does not link, but for operators that we did not write, and
        # those who ask the runtime for memory
        asks = (
            kernel.family == "fallback"
            or kernel.family.startswith("joined")
            or "winograd" in kernel.family
        )
        libraries, checks = (["-lc", "-lm"], []) if asks else (["-lc"], ["-Wl,-z,defs"])
        subprocess.run(
            ["gcc", "-shared", "-nodefaultlibs", *checks, "-o", library, objects, *libraries],
            check=True,
        )
        loaded = Library.from_file(Path(library))
    function = loaded.symbols[symbol]
    function.library = loaded  # keeps the code while somebody holds the function
    function.restype = ctypes.c_int32
    function.argtypes = [ctypes.c_void_p] * len(kernel.operands)
    return function


def call(kernel: Any, *arrays: np.ndarray, isa: VectorIsa = AVX512, threads: int = 2) -> None:
    """Run the kernel in place on copies between guard zones, write the results back, and check the
    guards."""
    start_workers(threads)
    use_threads(threads)
    padded, views = [], []
    for array in arrays:
        room = np.full(array.size + 2 * _GUARD + 16, 77, array.dtype)
        shift = -(room.ctypes.data + _GUARD * array.itemsize) % 64 // array.itemsize
        view = room[_GUARD + shift : _GUARD + shift + array.size]
        view[:] = array.ravel()
        padded.append((room, _GUARD + shift))
        views.append(view)
    assert build(kernel, isa)(*(v.ctypes.data for v in views)) == 0
    for (room, start), array, view in zip(padded, arrays, views, strict=True):
        assert (room[:start] == room[0]).all(), "wrote before an argument"
        assert (room[start + array.size :] == room[0]).all(), "wrote past an argument"
        array.reshape(-1)[:] = view


def run_everywhere(kernel: Any, arrays: Iterable[np.ndarray], isa: VectorIsa) -> np.ndarray:
    """The last array after the kernel ran with 1 and with 2 threads: bit-identical, or the test
    fails."""
    first, second = [a.copy() for a in arrays], [a.copy() for a in arrays]
    call(kernel, *first, isa=isa, threads=1)
    call(kernel, *second, isa=isa, threads=2)
    np.testing.assert_array_equal(first[-1], second[-1])
    return first[-1]


def tensor(
    batch: int,
    channels: int,
    height: int,
    width: int,
    halo: int | None = None,
    dtype: str = "float32",
) -> TensorLayout:
    """A framed layout, or a compact one without `halo`."""
    frame = compact_frame(height, width) if halo is None else halo_frame(height, width, halo, dtype)
    return TensorLayout(batch=batch, channels=channels, frame=frame, dtype=dtype)


def like(values: np.ndarray, halo: int | None, dtype: str = "float32") -> TensorLayout:
    """The layout of an array's shape."""
    batch, channels, height, width = values.shape
    return tensor(batch, channels, height, width, halo, dtype)


def pixel_index(frame: Frame) -> np.ndarray:
    """(height, width) offsets of the pixels in one plane."""
    offsets: np.ndarray = (
        frame.first
        + np.arange(frame.height)[:, None] * frame.pitch
        + np.arange(frame.width)[None, :]
    )
    return offsets


def between_rows(frame: Frame) -> np.ndarray:
    """Offsets of the columns between the rows of one plane."""
    flat = np.arange(frame.first, frame.first + frame.pixels)
    return np.setdiff1d(flat, pixel_index(frame))


def into(layout: TensorLayout, values: np.ndarray, elsewhere: int = 0) -> np.ndarray:
    """(batch, channels, height, width) -> the flat buffer of `layout`."""
    flat = np.full((layout.batch, layout.channels, layout.frame.plane), elsewhere, layout.dtype)
    flat[:, :, pixel_index(layout.frame)] = values
    return flat.ravel()


def out_of(layout: TensorLayout, flat: np.ndarray) -> np.ndarray:
    """The pixels of a flat buffer as (batch, channels, height, width)."""
    planes = flat.reshape(layout.batch, layout.channels, layout.frame.plane)
    return np.ascontiguousarray(planes[:, :, pixel_index(layout.frame)])


def halo_is_zero(layout: TensorLayout, flat: np.ndarray) -> bool:
    """Whether everything but the pixels is zero (asked only of frames with a halo)."""
    planes = flat.reshape(-1, layout.frame.plane).copy()
    planes[:, pixel_index(layout.frame)] = 0
    return layout.frame.halo == 0 or not planes.any()


def check_tensor(
    layout: TensorLayout, flat: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4
) -> None:
    """Compare the pixels and insist on a zero halo."""
    np.testing.assert_allclose(out_of(layout, flat), expected, rtol=tolerance, atol=tolerance)
    assert halo_is_zero(layout, flat), "the halo holds data"


def check_codes(
    layout: TensorLayout,
    flat: np.ndarray,
    real: np.ndarray,
    quantization: Quantization,
    elsewhere: int = 0,
) -> None:
    """Compare the pixels to `real`, float64, rounded: one code less or more only where float32
    cannot know, as close as 1e-4 to the middle between two. Everything else still is what it was.
    """
    exact = np.clip(real / quantization.scale + quantization.zero_point, 0, LARGEST_CODE)
    middle = np.abs(exact - np.floor(exact) - 0.5) < 1e-4
    difference = np.abs(out_of(layout, flat).astype("int32") - np.rint(exact).astype("int32"))
    assert (difference <= middle).all(), f"{(difference > middle).sum()} codes differ"
    rest = into(layout, out_of(layout, flat), elsewhere)
    np.testing.assert_array_equal(flat, rest, "something besides the pixels was written")


def check_conv(
    conv: Any, operands: dict[str, np.ndarray], expected: np.ndarray, isa: VectorIsa
) -> None:
    """Compare a convolution, with a random residual where it takes one, and ReLU behind it, to
    `expected` without these two."""
    if conv.epilogue.residual:
        residual = np.random.default_rng(2).standard_normal(expected.shape).astype("float32")
        expected = expected + residual
        operands = {**operands, conv.epilogue.operand: into(conv.out, residual)}
    got = run_everywhere(conv, [operands[name] for name in conv.operands], isa)
    check_tensor(conv.out, got, np.maximum(expected, 0))
