"""Copies between layouts are exact and leave the halo zero."""

from dataclasses import replace

import numpy as np
import pytest

from subpc.schedules.isa import AVX2, AVX512, GENERIC, VectorIsa
from subpc.schedules.layout import TensorLayout, compact_frame, halo_frame
from subpc.schedules.relayout import PhaseSplit, Relayout
from tests.schedules.harness import (
    ISAS,
    assembly,
    check_tensor,
    cpu_supports,
    into,
    out_of,
    pixel_index,
    run_everywhere,
    tensor,
)

SHAPES = [(1, 1, 1, 1), (3, 17, 7, 7), (1, 3, 13, 17), (2, 4, 5, 150), (1, 33, 56, 56)]


def pixels(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    rng = np.random.default_rng(0)
    if dtype == "uint8":
        return rng.integers(0, 256, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.pairs
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("halos", [(None, 1), (1, None), (0, 2), (3, 1), (None, 0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relayout(
    shape: tuple[int, int, int, int], halos: tuple[int | None, int | None], isa: VectorIsa
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    source, out, x = tensor(*shape, halos[0]), tensor(*shape, halos[1]), pixels(shape)
    got = run_everywhere(
        Relayout(source=source, out=out), [into(source, x), np.zeros(out.elements, "float32")], isa
    )
    check_tensor(out, got, x, tolerance=0)


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("dtype", "isa"),
    [("float32", AVX512), ("float32", GENERIC), ("uint8", AVX512), ("uint8", AVX2)],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("halo", [None, 1])
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (2, 1), (3, 4)], ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 3, 1, 1), (1, 17, 7, 7), (3, 2, 13, 17), (1, 3, 34, 75)], ids=str
)
def test_phase_split(
    shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    halo: int | None,
    dtype: str,
    isa: VectorIsa,
) -> None:
    if not cpu_supports(isa):
        pytest.skip("this CPU lacks the instructions")
    source, x = tensor(*shape, halo, dtype), pixels(shape, dtype)
    frame = halo_frame(-(-shape[2] // stride[0]), -(-shape[3] // stride[1]), 1, dtype)
    phases = tuple(
        (py, px) for py in range(min(stride[0], shape[2])) for px in range(min(stride[1], shape[3]))
    )
    kernel = PhaseSplit(source=source, stride=stride, phases=phases, out=frame, fill=7)
    got = run_everywhere(kernel, [into(source, x), np.full(kernel.layout.elements, 7, dtype)], isa)
    expected = np.full((shape[0], shape[1], len(phases), frame.plane), 7, dtype)
    for p, (py, px) in enumerate(phases):
        part = x[:, :, py :: stride[0], px :: stride[1]]
        expected[:, :, p, pixel_index(frame)[: part.shape[2], : part.shape[3]]] = part
    np.testing.assert_array_equal(got, expected.ravel())


def test_extra_row_and_column_go_into_the_halo() -> None:
    # a 3x3 stride 2 convolution without padding: 13 pixels give 6, but phase 0 has 7
    source, x = tensor(1, 2, 13, 13), pixels((1, 2, 13, 13))
    kernel = PhaseSplit(source=source, stride=(2, 2), phases=((0, 0),), out=halo_frame(6, 6, 1))
    got = run_everywhere(kernel, [x.ravel(), np.zeros(kernel.layout.elements, "float32")], AVX512)
    frame = kernel.out
    at = frame.first + np.arange(7)[:, None] * frame.pitch + np.arange(7)
    np.testing.assert_array_equal(got.reshape(2, -1)[:, at], x[0, :, ::2, ::2])


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_phase_without_pixels_writes_nothing(dtype: str) -> None:
    frame = halo_frame(1, 1, 1, dtype)
    source = tensor(1, 2, 1, 4, 1, dtype)
    kernel = PhaseSplit(source=source, stride=(2, 2), phases=((1, 0),), out=frame)
    y = np.full(kernel.layout.elements, 7, dtype)
    assert (run_everywhere(kernel, [np.zeros(source.elements, dtype), y], AVX512) == 7).all()


def test_a_frame_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        PhaseSplit(
            source=tensor(1, 1, 13, 13), stride=(2, 2), phases=((0, 0),), out=halo_frame(6, 6, 0)
        )


def test_stride_two_is_two_loads_and_a_shuffle() -> None:
    kernel = PhaseSplit(
        source=tensor(1, 64, 64, 64),
        stride=(2, 2),
        phases=((0, 0), (1, 1)),
        out=halo_frame(32, 32, 1),
    )
    text = assembly(kernel, AVX512)
    assert "vpermt2ps" in text or "vpermi2ps" in text
    assert "vinsertps" not in text
    assert "Workspace" not in text


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
def test_bytes_of_stride_two_are_shuffled_in_registers(isa: VectorIsa) -> None:
    kernel = PhaseSplit(
        source=tensor(1, 64, 64, 130, dtype="uint8"),
        stride=(2, 2),
        phases=((0, 0), (1, 1)),
        out=halo_frame(32, 65, 1, "uint8"),
    )
    text = assembly(kernel, isa)
    assert "vpshufb" in text or "vpackuswb" in text
    assert "vpinsrb" not in text


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_copies_of_other_types(dtype: str) -> None:
    """Planes are framed in whole cache lines of each type, and every element arrives as it was."""
    x = np.random.default_rng(0).integers(0, 255, (2, 3, 5, 21)).astype(dtype)
    source = TensorLayout(batch=2, channels=3, frame=compact_frame(5, 21), dtype=dtype)
    out = TensorLayout(batch=2, channels=3, frame=halo_frame(5, 21, 2, dtype), dtype=dtype)
    got = run_everywhere(
        Relayout(source=source, out=out), [x.ravel(), np.full(out.elements, 7, dtype)], AVX512
    )
    np.testing.assert_array_equal(out_of(out, got), x)
    untouched = got.reshape(2, 3, out.frame.plane).copy()
    untouched[:, :, pixel_index(out.frame)] = 7
    assert (untouched == 7).all()


def test_no_copy_changes_a_type() -> None:
    plane = TensorLayout(batch=1, channels=1, frame=compact_frame(2, 2))
    with pytest.raises(ValueError, match="different shapes or types"):
        Relayout(source=plane, out=replace(plane, dtype="int32"))
