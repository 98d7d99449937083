"""Workspace buffers share memory where their lifetimes allow it, and nowhere else."""

from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from subpc.passes.plan_memory import plan_memory, resolve
from subpc.passes.program import Buffer, Location, Program, Step, WeightStore
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import Kernel
from subpc.schedules.layout import LINE, MAX_TILE, TensorLayout, halo_frame
from subpc.schedules.relayout import PhaseSplit


@dataclass(frozen=True)
class Nothing:
    """A kernel that is never built."""

    family: str = "nothing"
    operands: tuple[str, ...] = ()
    flops: int = 0

    def prim_func(self, symbol: str, isa: VectorIsa) -> tvm.tirx.PrimFunc:
        raise NotImplementedError


LAYOUTS = [None, *(TensorLayout(batch=1, channels=c, frame=halo_frame(h, h, 1)) for c, h in ((2, 5), (2, 7), (3, 5)))]


def program(buffers: list[tuple[int, int]], steps: list[list[int]]) -> Program:
    """buffers: (layout number, floats where it has none); steps: the buffers that each one touches."""
    made = [Buffer(floats=layout.floats if (layout := LAYOUTS[kind]) else floats, layout=layout) for kind, floats in buffers]
    calls = [Step(layer="", kernel=Nothing(), operands=tuple(Location(space="workspace", index=i) for i in step)) for step in steps]
    return Program(inputs=[], outputs=[], steps=calls, buffers=made)


def lifetimes(plan: Program) -> dict[int, tuple[int, int]]:
    """First and last step that touches a buffer, found the slow way."""
    touched: dict[int, list[int]] = {}
    for number, step in enumerate(plan.steps):
        for operand in step.operands:
            touched.setdefault(operand.index, []).append(number)
    return {index: (min(steps), max(steps)) for index, steps in touched.items()}


@st.composite
def programs(draw: st.DrawFn) -> Program:
    count = draw(st.integers(1, 12))
    buffers = draw(st.lists(st.tuples(st.integers(0, len(LAYOUTS) - 1), st.integers(1, 400)), min_size=count, max_size=count))
    steps = draw(st.lists(st.lists(st.integers(0, count - 1), min_size=1, max_size=4), min_size=1, max_size=15))
    return program(buffers, steps)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(plan=programs())
def test_live_buffers_never_overlap(plan: Program) -> None:
    offsets, total = plan_memory(plan)
    lives = lifetimes(plan)
    for i, (first, last) in lives.items():
        assert offsets[i] % LINE == 0
        # A kernel may store whole tiles: up to MAX_TILE floats past a tensor's end have to be its own, or nobody's.
        assert 0 <= offsets[i] <= offsets[i] + plan.buffers[i].floats + MAX_TILE <= total
        for j, (start, end) in lives.items():
            if i < j and first <= end and start <= last:
                a, b = sorted((offsets[k], offsets[k] + plan.buffers[k].floats) for k in (i, j))
                assert a[1] <= b[0], f"buffers {i} and {j}"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(plan=programs())
def test_frames_are_reused_for_equal_layouts_only(plan: Program) -> None:
    """The zeros between the rows of a frame are written once, before the first run: nothing else may ever be put there."""
    offsets, _ = plan_memory(plan)
    used = sorted(lifetimes(plan))
    for i in used:
        for j in used:
            a, b = (range(offsets[k], offsets[k] + plan.buffers[k].floats) for k in (i, j))
            if a.start < b.stop and b.start < a.stop and plan.buffers[i].layout != plan.buffers[j].layout:
                pytest.fail(f"buffers {i} and {j} share memory")
            if plan.buffers[i].layout is not None and a.start < b.stop and b.start < a.stop:
                assert a == b


def test_phase_planes_and_activations_never_share() -> None:
    """Both have the layout of a 7x7 plane, but the phases of a 5x5 one leave pixels alone that they need as zeros."""
    layout = TensorLayout(batch=1, channels=2, frame=halo_frame(7, 7, 1))

    def split(side: int) -> PhaseSplit:
        source = TensorLayout(batch=1, channels=2, frame=halo_frame(side, side, 0))
        return PhaseSplit(source=source, stride=(1, 1), phases=((0, 0),), out=layout.frame)

    def touch(kernel: Kernel, *buffers: int) -> Step:
        return Step(layer="", kernel=kernel, operands=tuple(Location(space="workspace", index=i) for i in buffers))

    kernels: list[Kernel] = [split(5), Nothing(), split(6), split(5)]
    plan = Program(inputs=[], outputs=[], buffers=[Buffer(floats=layout.floats, layout=layout)] * 4)
    plan.steps = [touch(kernel, index) for index, kernel in enumerate(kernels)]
    offsets, _ = plan_memory(plan)
    assert len(set(offsets)) == 3
    assert offsets[0] == offsets[3]


def test_a_chain_needs_two_buffers() -> None:
    chain = program([(1, 0)] * 6, [[i, i + 1] for i in range(5)])
    offsets, _ = plan_memory(chain)
    assert len(set(offsets)) == 2


def test_the_smallest_room_that_fits_is_taken() -> None:
    """Two buffers die; the next one fits into both, and leaves the larger one for what comes later."""
    plan = program([(0, 300), (0, 100), (0, 80), (0, 280)], [[0, 1], [2], [2, 3]])
    offsets, _ = plan_memory(plan)
    assert offsets[2] == offsets[1]
    assert offsets[3] == offsets[0]


def test_unused_buffers_need_no_room() -> None:
    empty = program([(0, 10_000)], [])
    assert plan_memory(empty)[1] < 10_000


def test_addresses() -> None:
    assert resolve(Location(space="workspace", index=1, offset=7), [0, 100]) == ("workspace", 0, 107)
    assert resolve(Location(space="weights", offset=5), []) == ("weights", 0, 5)
    assert resolve(Location(space="output", index=2), []) == ("output", 2, 0)


def test_equal_weights_are_stored_once() -> None:
    store = WeightStore()
    a = np.arange(20, dtype="float32")
    first, second = store.add(a), store.add(a + 1)
    assert store.add(a.copy()) == first
    assert second.offset == 2 * LINE  # 20 floats in whole cache lines
    blob = store.blob()
    np.testing.assert_array_equal(blob[second.offset :][:20], a + 1)
    assert blob.size == store.floats == 4 * LINE


@pytest.mark.parametrize("size", [8, 1 << 16])  # below and above the size from which a digest stands for the values
def test_equal_bytes_of_another_type_or_shape_are_other_weights(size: int) -> None:
    store = WeightStore()
    values = np.zeros(size, "float32")
    places = [store.add(values), store.add(values.astype("int32")), store.add(values.reshape(2, -1))]
    assert len({place.offset for place in places}) == 3
    changed = values.copy()
    changed[-1] = 1
    assert store.add(changed).offset not in {place.offset for place in places}


def test_other_types_keep_their_bytes() -> None:
    store = WeightStore()
    indices = np.array([1, -2, 3], "int64")
    place = store.add(indices)
    np.testing.assert_array_equal(store.blob()[place.offset :].view("int64")[:3], indices)


def test_no_weights() -> None:
    assert WeightStore().blob().size > 0  # an argument needs an address
