"""The table of convolution kernels: a new family is a line here, and one of lowering rules in
passes/lower_conv.py."""

from dataclasses import MISSING, fields
from typing import Any

from subpc.schedules.choose_direct import DIRECT
from subpc.schedules.choose_flat import FLAT
from subpc.schedules.choose_grouped import GROUPED
from subpc.schedules.choose_int8_grouped import GROUPED_I8
from subpc.schedules.choose_quads import QUADS
from subpc.schedules.choose_winograd import WINOGRAD
from subpc.schedules.family import DENSE, Family
from subpc.schedules.isa import VectorIsa
from subpc.schedules.workload import Choice, ConvWorkload

FAMILIES: tuple[Family[Any], ...] = (FLAT, DIRECT, WINOGRAD, GROUPED, QUADS, GROUPED_I8)
# A dense kernel for a pattern that leaves less than this would have to be more than twice as fast
# as the sparse one at the same work.
MIN_DENSITY = 0.45


def family_of(choice: Choice) -> Family[Any]:
    """The family that a schedule is for; KeyError for an unknown one."""
    return {family.name: family for family in FAMILIES}[str(choice["family"]).removeprefix(DENSE)]


def completed(choice: Choice) -> Choice:
    """A recorded schedule with the fields that its family's tile has got since, at their defaults,
    which do what was done before; what is no schedule of a known family stays as it is."""
    try:
        tile = family_of(choice).tile
    except KeyError:
        return choice
    defaults = {f.name: f.default for f in fields(tile) if f.default is not MISSING}
    return {**defaults, **choice}


def families_for(workload: ConvWorkload, isa: VectorIsa) -> dict[str, Family[Any]]:
    """The families that can compute a workload, by what schedules call them: with the pattern of
    its weights, then without."""
    same = [family for family in FAMILIES if family.precision == workload.precision]
    found = {
        family.name: family for family in same if family.takes(workload, workload.filters, isa)
    }
    if workload.n and workload.density >= MIN_DENSITY:
        dense = (
            family
            for family in same
            if family.patterns and family.takes(workload, workload.out[0], isa)
        )
        found |= {DENSE + family.name: family for family in dense}
    return found
