"""Workspace buffers share memory where their lifetimes allow it, and nowhere else."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subpc.passes.emit_main import emit_main
from subpc.passes.plan_memory import OVERRUN, MemoryPlan, plan_memory
from subpc.passes.program import Buffer, Location, Program, Step, WeightStore
from subpc.schedules.isa import VectorIsa
from subpc.schedules.kernel import Kernel, PlainKernel
from subpc.schedules.layout import LINE_BYTES, MAX_TILE, TensorLayout, halo_frame
from subpc.schedules.operand import Operand
from subpc.schedules.relayout import PhaseSplit


@dataclass(frozen=True)
class Nothing(PlainKernel):
    """A kernel that is never built."""

    family = "nothing"
    flops = 0

    def sizes(self) -> dict[str, Operand]:
        return {}

    def emit(self, b: dict[str, Any], isa: VectorIsa) -> None:
        raise NotImplementedError


def layout(channels: int, side: int, dtype: str = "float32") -> TensorLayout:
    return TensorLayout(
        batch=1, channels=channels, frame=halo_frame(side, side, 1, dtype), dtype=dtype
    )


LAYOUTS = [
    None,
    layout(2, 5),
    layout(2, 7),
    layout(3, 5),
    layout(2, 5, "uint8"),
    layout(2, 5, "int32"),
]


def program(buffers: list[tuple[int, int]], steps: list[list[int]]) -> Program:
    """buffers: (layout number, bytes where it has none); steps: the buffers that each one
    touches."""
    made = [
        Buffer(bytes=where.bytes if (where := LAYOUTS[kind]) else size, layout=where)
        for kind, size in buffers
    ]
    calls = [
        Step(
            layer="",
            kernel=Nothing(),
            operands=tuple(Location(space="workspace", index=i) for i in step),
        )
        for step in steps
    ]
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
    buffers = draw(
        st.lists(
            st.tuples(st.integers(0, len(LAYOUTS) - 1), st.integers(1, 1600)),
            min_size=count,
            max_size=count,
        )
    )
    steps = draw(
        st.lists(
            st.lists(st.integers(0, count - 1), min_size=1, max_size=4), min_size=1, max_size=15
        )
    )
    return program(buffers, steps)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(plan=programs())
def test_live_buffers_never_overlap(plan: Program) -> None:
    memory, lives = plan_memory(plan), lifetimes(plan)
    offsets = memory.offsets
    for i, (first, last) in lives.items():
        assert offsets[i] % LINE_BYTES == 0
        # A kernel may store whole tiles: up to MAX_TILE elements past a tensor's end have to be its
        # own, or nobody's.
        assert 0 <= offsets[i] <= offsets[i] + plan.buffers[i].bytes + OVERRUN <= memory.size
        for j, (start, end) in lives.items():
            if i < j and first <= end and start <= last:
                a, b = sorted((offsets[k], offsets[k] + plan.buffers[k].bytes) for k in (i, j))
                assert a[1] <= b[0], f"buffers {i} and {j}"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(plan=programs())
def test_frames_are_reused_for_equal_layouts_only(plan: Program) -> None:
    """What lies between the rows of a frame is written once, before the first run: nothing else may
    ever be put there."""
    offsets = plan_memory(plan).offsets
    used = sorted(lifetimes(plan))
    for i in used:
        for j in used:
            a, b = (range(offsets[k], offsets[k] + plan.buffers[k].bytes) for k in (i, j))
            if (
                a.start < b.stop
                and b.start < a.stop
                and plan.buffers[i].layout != plan.buffers[j].layout
            ):
                pytest.fail(f"buffers {i} and {j} share memory")
            if plan.buffers[i].layout is not None and a.start < b.stop and b.start < a.stop:
                assert a == b


def test_phase_planes_and_activations_never_share() -> None:
    """Both have the layout of a 7x7 plane, but the phases of a 5x5 one leave pixels alone that they
    need as zeros."""
    whole = layout(2, 7)

    def split(side: int) -> PhaseSplit:
        source = TensorLayout(batch=1, channels=2, frame=halo_frame(side, side, 0))
        return PhaseSplit(source=source, stride=(1, 1), phases=((0, 0),), out=whole.frame)

    def touch(kernel: Kernel, *buffers: int) -> Step:
        return Step(
            layer="",
            kernel=kernel,
            operands=tuple(Location(space="workspace", index=i) for i in buffers),
        )

    kernels: list[Kernel] = [split(5), Nothing(), split(6), split(5)]
    plan = Program(inputs=[], outputs=[], buffers=[Buffer(bytes=whole.bytes, layout=whole)] * 4)
    plan.steps = [touch(kernel, index) for index, kernel in enumerate(kernels)]
    offsets = plan_memory(plan).offsets
    assert len(set(offsets)) == 3
    assert offsets[0] == offsets[3]


def test_a_chain_needs_two_buffers() -> None:
    chain = program([(1, 0)] * 6, [[i, i + 1] for i in range(5)])
    offsets = plan_memory(chain).offsets
    assert len(set(offsets)) == 2


def test_the_smallest_room_that_fits_is_taken() -> None:
    """Two buffers die; the next one fits into both, and leaves the larger one for what comes
    later."""
    plan = program([(0, 300), (0, 100), (0, 80), (0, 280)], [[0, 1], [2], [2, 3]])
    offsets = plan_memory(plan).offsets
    assert offsets[2] == offsets[1]
    assert offsets[3] == offsets[0]


def test_unused_buffers_need_no_room() -> None:
    empty = program([(0, 10_000)], [])
    assert plan_memory(empty).size < 10_000


def test_addresses() -> None:
    plan = MemoryPlan(offsets=(0, 100), size=200)
    assert plan.resolve(Location(space="workspace", index=1, offset=7)) == ("workspace", 0, 107)
    assert plan.resolve(Location(space="weights", offset=5)) == ("weights", 0, 5)
    assert plan.resolve(Location(space="output", index=2)) == ("output", 2, 0)


@pytest.mark.parametrize(("dtype", "size"), [("uint8", 1), ("int32", 4), ("float32", 4)])
def test_memory_is_counted_in_bytes_of_each_type(dtype: str, size: int) -> None:
    """A frame is a number of elements, its lines are whole cache lines of 64 bytes whatever the
    type, and so is a tensor's room."""
    tensor = layout(3, 9, dtype)
    line = LINE_BYTES // size
    assert tensor.frame.first % line == tensor.frame.plane % line == 0
    assert (
        tensor.frame.plane // line % 2 == 1
    )  # neighbouring channels fall into different cache sets
    assert tensor.frame.plane >= tensor.frame.first + 9 * tensor.frame.pitch + MAX_TILE
    assert tensor.bytes == size * tensor.elements == 3 * tensor.plane_bytes
    plan = Program(inputs=[], outputs=[], buffers=[Buffer(bytes=tensor.bytes, layout=tensor)] * 2)
    plan.steps = [
        Step(
            layer="",
            kernel=Nothing(),
            operands=tuple(Location(space="workspace", index=i) for i in range(2)),
        )
    ]
    first, second = plan_memory(plan).offsets
    assert second - first >= tensor.bytes
    assert second - first <= tensor.bytes + OVERRUN + 6 * LINE_BYTES


def test_tensors_of_different_types_never_share_their_zeros() -> None:
    """What stands between the rows may be another number in each of them."""
    floats, integers, bytes_ = layout(2, 5), layout(2, 5, "int32"), layout(2, 5, "uint8")
    assert floats.frame == integers.frame
    assert bytes_.bytes < floats.bytes
    plan = program([(1, 0), (5, 0), (4, 0), (5, 0)], [[0], [1], [2], [3]])
    offsets = plan_memory(plan).offsets
    assert len(set(offsets)) == 3
    assert offsets[1] == offsets[3]


def test_a_tensor_of_bytes_may_begin_anywhere() -> None:
    """The workspace is an array of floats; the second image of a byte tensor need not begin at
    one."""
    plan = program([(0, 64), (0, 64)], [[0, 1]])
    plan.steps[0] = Step(
        layer="", kernel=Nothing(), operands=(Location(space="workspace", index=1, offset=5),)
    )
    memory = plan_memory(plan)
    script = emit_main(plan, "main", memory, 16).script()
    assert (
        f"handle_add_byte_offset(T.address_of(workspace[{(memory.offsets[1] + 5) // 4}]), 1)"
        in script
    )


def test_equal_weights_are_stored_once() -> None:
    store = WeightStore()
    a = np.arange(20, dtype="float32")
    first, second = store.add(a), store.add(a + 1)
    assert store.add(a.copy()) == first
    assert second.offset == 2 * LINE_BYTES  # 20 floats in whole cache lines
    blob = store.blob()
    np.testing.assert_array_equal(blob.view("uint8")[second.offset :].view("float32")[:20], a + 1)
    assert blob.nbytes == store.bytes == 4 * LINE_BYTES


@pytest.mark.parametrize(
    "size", [8, 1 << 16]
)  # below and above the size from which a digest stands for the values
def test_equal_bytes_of_another_type_or_shape_are_other_weights(size: int) -> None:
    store = WeightStore()
    values = np.zeros(size, "float32")
    places = [
        store.add(values),
        store.add(values.astype("int32")),
        store.add(values.reshape(2, -1)),
    ]
    assert len({place.offset for place in places}) == 3
    changed = values.copy()
    changed[-1] = 1
    assert store.add(changed).offset not in {place.offset for place in places}


def test_other_types_keep_their_bytes() -> None:
    store = WeightStore()
    indices = np.array([1, -2, 3], "int64")
    place = store.add(indices)
    np.testing.assert_array_equal(
        store.blob().view("uint8")[place.offset :].view("int64")[:3], indices
    )


def test_no_weights() -> None:
    assert WeightStore().blob().size > 0  # an argument needs an address
