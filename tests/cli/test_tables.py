"""Reports as tables: what every layer computes in is a column where any computes integers."""

from dataclasses import replace
from typing import Any

from subpc.cli.tables import layer_table, profile_table, why
from subpc.library.report import CompileReport
from tests.subpc.profile_page.report_input import in_integers, page_input


def columns(table: Any) -> list[str]:
    return [str(column.header) for column in table.columns]


def cells(table: Any, column: str) -> list[str]:
    return [str(cell) for cell in table.columns[columns(table).index(column)].cells]


def test_layers_of_integers_have_a_precision_and_bytes() -> None:
    floats = page_input()
    assert "computes" not in columns(layer_table(CompileReport(metadata=floats.metadata)))
    table = layer_table(CompileReport(metadata=in_integers(floats).metadata))
    assert cells(table, "computes") == ["int8", "int8", "int8", "float32"]
    assert cells(table, "MB") == ["0.00"] * 4
    assert cells(table, "why")[-1] == "float32: input: not quantized"


def test_a_profile_counts_operations_where_some_are_of_integers() -> None:
    floats = page_input().profile
    assert "GFLOP/s" in columns(profile_table(floats, None))
    integers = in_integers(page_input()).profile
    table = profile_table(integers, None)
    assert "GOP/s" in columns(table)
    assert cells(table, "computes") == [row.precision or "-" for row in integers.layers]


def test_both_reasons_are_said() -> None:
    layer = replace(page_input().metadata.layers[1], reason="no zeros", why_float="sums: too large")
    assert why(layer) == "no zeros; float32: sums: too large"
    chosen = replace(layer, why_float="", why_integers="predicted 2x as fast")
    assert why(chosen) == "no zeros; int8: predicted 2x as fast"
