"""The schedules that families offer: valid ones only, plain data, the default always among them."""

import json
from dataclasses import replace

import pytest

from subpc.schedules.isa import AVX2, AVX512, GENERIC, VectorIsa
from subpc.schedules.search_space import is_valid, search_space
from subpc.schedules.workload import ConvWorkload

DENSE = ConvWorkload(
    batch=1,
    source=(64, 28, 28),
    out=(64, 28, 28),
    kernel=(3, 3),
    stride=(1, 1),
    padding=(1, 1),
    dilation=(1, 1),
    groups=1,
    n=0,
    kept=64,
    uniform=True,
    residual=False,
    clamped=False,
    activation="relu",
)
SPARSE = replace(DENSE, n=16, kept=128)  # half of the blocks
NARROW = replace(DENSE, n=4, kept=512)
DEPTHWISE = replace(DENSE, groups=64)
CASES = {
    "dense": (DENSE, {"flat", "direct", "winograd"}),
    "1x16": (
        SPARSE,
        {"flat", "direct", "winograd", "dense flat", "dense direct", "dense winograd"},
    ),
    "1x4": (NARROW, {"flat", "dense flat", "dense direct", "dense winograd"}),
    "clamped": (
        replace(SPARSE, clamped=True, kernel=(1, 1), padding=(0, 0)),
        {"flat", "dense flat"},
    ),
    "1x16, very sparse": (replace(SPARSE, kept=16), {"flat", "direct", "winograd"}),
    "depthwise": (DEPTHWISE, {"grouped"}),
    "depthwise of codes": (replace(DEPTHWISE, precision="int8"), {"grouped_i8"}),
    "strided": (replace(DENSE, stride=(2, 2), out=(64, 14, 14)), {"flat", "direct"}),
    "block diagonal": (replace(DENSE, groups=4), {"flat", "direct"}),
}


@pytest.mark.parametrize("name", CASES)
def test_families(name: str) -> None:
    workload, families = CASES[name]
    assert {choice["family"] for choice in search_space(workload, AVX512)} == families


@pytest.mark.parametrize("isa", [AVX512, AVX2, GENERIC], ids=["avx512", "avx2", "generic"])
@pytest.mark.parametrize("name", CASES)
def test_register_tiles_fit(name: str, isa: VectorIsa) -> None:
    workload, _ = CASES[name]
    for choice in search_space(workload, isa):
        rows = int(choice["rows"])
        if choice["family"] in ("flat", "dense flat"):
            assert rows * int(choice["vectors"]) < isa.registers
            assert workload.out[0] % (rows * int(choice["blocks"])) == 0
        elif choice["family"] in ("direct", "dense direct", "winograd", "dense winograd"):
            assert rows * int(choice["columns"]) * int(choice["vectors"]) < isa.registers


def test_a_residual_wants_disjoint_tiles() -> None:
    space = search_space(replace(SPARSE, residual=True), AVX512)
    assert all(28 % int(choice["columns"]) == 0 for choice in space if "columns" in choice)


def test_choices_survive_json_and_no_two_are_equal() -> None:
    space = search_space(SPARSE, AVX512)
    assert len({json.dumps(choice) for choice in space}) == len(space)
    assert all(json.loads(json.dumps(choice)) == choice for choice in space)
    assert is_valid(json.loads(json.dumps(space[7])), SPARSE, AVX512)


def test_what_is_not_in_the_space_is_not_valid() -> None:
    good = search_space(SPARSE, AVX512)[0]
    for wrong in (
        {},
        good | {"rows": 3},
        good | {"rows": 1.0},
        good | {"pixels_outer": 1},
        good | {"more": 1},
        {"family": "flat"},
    ):
        assert not is_valid(wrong, SPARSE, AVX512)  # type: ignore[arg-type]


def test_workloads_are_keyed_by_what_matters_only() -> None:
    assert ConvWorkload.from_dict(json.loads(SPARSE.key)) == SPARSE
    assert SPARSE.key != NARROW.key
    assert ConvWorkload.from_dict({**SPARSE.to_dict(), "kept": -1}) is None
    assert ConvWorkload.from_dict({"op": "conv2d"}) is None
