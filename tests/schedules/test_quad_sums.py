"""schedules/quad_sums.py: how many products fit 16 bits, and sums at the edge of what does, bit for
bit on CPUs without vpdpbusd."""

from dataclasses import replace

import numpy as np
import pytest

from subpc.schedules.activation import NONE
from subpc.schedules.choose_quads import choose_quad_tile
from subpc.schedules.isa import AVX2, AVX512
from subpc.schedules.quad_sums import STEPS, fitting_steps
from subpc.schedules.quad_tile import QuadTile
from tests.schedules.harness import assembly, cpu_supports
from tests.schedules.quad_cases import Case, check, kernel_of

MADD = {isa.name: isa for isa in (AVX512, AVX2)}
TILE = QuadTile(rows=3, vectors=2, band=2, blocks=2)
# Steps that fit by the largest code of each width, all of one sign: 128 / (2 * largest), of those
# that kernels are made for.
WIDTHS = {8: (127, 0), 7: (63, 1), 6: (31, 2), 5: (15, 4), 4: (7, 4), 3: (3, 18), 2: (1, 36)}


def steps_of(*pairs: tuple[int, int], taps: int = 1) -> int:
    """fitting_steps() of one filter whose steps have these first two codes, others zero."""
    codes = np.zeros((1, len(pairs) // taps, 4, taps), "int8")
    for step, pair in enumerate(pairs):
        codes[0, step // taps, :2, step % taps] = pair
    return fitting_steps(codes.reshape(1, -1, taps))


def test_codes_of_one_sign_add_up_to_128() -> None:
    assert steps_of((64, 64)) > 0
    assert steps_of((-64, -64)) > 0
    assert steps_of((64, 65)) == 0
    assert steps_of((-128, -1)) == 0


def test_codes_of_other_signs_do_not_meet() -> None:
    assert steps_of((127, -128)) > 1
    assert steps_of((127, -100), (1, -28)) > 1
    assert steps_of((127, -100), (2, -28)) == 1


def test_steps_are_the_taps_of_a_quad_and_then_those_of_the_next() -> None:
    neighbours = [(0, 0), (100, 0), (100, 0), (0, 0)]
    assert steps_of(*neighbours, taps=2) == 1
    same_tap = [(100, 0), (0, 0), (100, 0), (0, 0)]
    assert steps_of(*same_tap, taps=2) == 2


def test_the_largest_of_all_filters_and_of_both_sums_decides() -> None:
    codes = np.ones((5, 8, 9), "int8")
    assert fitting_steps(codes) == 36
    codes[3, 6, 8] = codes[3, 7, 8] = 65
    assert fitting_steps(codes) == 0


@pytest.mark.pairs
@pytest.mark.parametrize("name", MADD)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bits", WIDTHS)
def test_sums_at_the_corners_of_each_width_are_exact(bits: int, kernel: int, name: str) -> None:
    isa, (largest, steps) = MADD[name], WIDTHS[bits]
    if not cpu_supports(isa):
        pytest.skip(f"this CPU has no {name}")
    corner = {"c_in": 152, "kernel": kernel, "n": 4, "size": (5, 6), "tile": TILE}
    case = Case(**corner, weights=largest, corner=True, narrow=steps, activation=NONE, codes=False)
    assert fitting_steps(np.full((4, 152, kernel**2), largest, "int8")) == steps
    check(case, isa)


@pytest.mark.parametrize("steps", STEPS[2:])
def test_one_more_than_fits_is_wrong(steps: int) -> None:
    """Or the corners above would prove nothing."""
    if not cpu_supports(AVX2):
        pytest.skip("this CPU has no avx2")
    largest = 128 // (2 * steps) + 1
    corner = {"c_in": 4 * 40, "kernel": 1, "n": 4, "size": (5, 6), "tile": TILE}
    case = Case(**corner, weights=largest, corner=True, narrow=steps, activation=NONE, codes=False)
    with pytest.raises(AssertionError, match="not equal"):
        check(case, AVX2)


@pytest.mark.pairs
@pytest.mark.parametrize("name", MADD)
@pytest.mark.parametrize("kernel", [1, 2])
@pytest.mark.parametrize(("narrow", "largest"), [(0, 127), (1, 64), (3, 21), (18, 3), (36, 1)])
def test_groups_of_any_number_of_quads(narrow: int, largest: int, kernel: int, name: str) -> None:
    if not cpu_supports(MADD[name]):
        pytest.skip(f"this CPU has no {name}")
    kept = (3, 0, 30, 17)
    case = Case(c_in=33, c_out=30, n=8, kept=kept, kernel=kernel, size=(3, 5), zero_point=77)
    check(replace(case, weights=largest, narrow=narrow, tile=TILE, residual="uint8"), MADD[name])


def spilled(case: Case, name: str) -> int:
    """Vectors that the loop of the most multiplications, without a jump in it, stores on the
    stack."""
    loop: list[str] = []
    loops = []
    for line in assembly(kernel_of(case), MADD[name]).splitlines():
        if line.startswith(".LBB"):
            loop = []
        elif line.startswith("\tj"):
            loops.append(loop)
            loop = []
        else:
            loop.append(line)
    multiplied = max(loops, key=lambda lines: sum("pmadd" in line for line in lines))
    return sum("mm" in line and line.endswith("(%rsp)") for line in multiplied)


@pytest.mark.parametrize("name", MADD)
@pytest.mark.parametrize("narrow", [0, 1, 2, 36])
def test_nothing_is_spilled_between_the_taps(narrow: int, name: str) -> None:
    case = Case(c_in=64, c_out=64, size=(56, 56), narrow=narrow)
    tile = choose_quad_tile(
        group=16,
        groups=4,
        plane=kernel_of(case).out.frame,
        batch=1,
        taps=9,
        quads=16,
        sparse=False,
        isa=MADD[name],
        narrow=narrow,
    )
    assert tile.rows * tile.vectors >= MADD[name].registers * 3 / 8
    assert spilled(replace(case, tile=tile), name) == 0
