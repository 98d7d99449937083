"""The schedules that each kernel family offers for a workload: plain data, valid ones only, the
default always among them."""

from subpc.schedules.families import families_for
from subpc.schedules.family import DENSE, Filters
from subpc.schedules.isa import VectorIsa
from subpc.schedules.workload import Choice, ConvWorkload, describe


def search_space(workload: ConvWorkload, isa: VectorIsa) -> list[Choice]:
    """Every valid schedule of every family that takes the workload, in a fixed order."""
    found = []
    for name, family in families_for(workload, isa).items():
        filters = _all_filters(workload) if name.startswith(DENSE) else _filters(workload)
        found += [describe(name, tile) for tile in family.tiles(workload, filters, isa)]
    return found


def is_valid(choice: Choice, workload: ConvWorkload, isa: VectorIsa) -> bool:
    """Whether a choice, from wherever, is one of the workload's schedules, with every value of the
    right type."""
    return any(
        choice == known and _types(choice) == _types(known) for known in search_space(workload, isa)
    )


def _types(choice: Choice) -> dict[str, type]:
    return {name: type(value) for name, value in choice.items()}


def _filters(workload: ConvWorkload) -> Filters:
    groups = -(-workload.out[0] // workload.filters)
    return Filters(group=workload.filters, kept=workload.kept / groups)


def _all_filters(workload: ConvWorkload) -> Filters:
    return Filters(group=workload.out[0], kept=workload.source[0])
