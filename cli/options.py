"""Option types that several commands share."""

from typing import Any

import click


class ShapeType(click.ParamType):  # type: ignore[type-arg]
    """`1,3,224,224` -> (1, 3, 224, 224)."""

    name = "N,C,H,W"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).replace("x", ",").split(",")
        if not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
            self.fail(f"{value!r} is not a shape; give positive numbers with commas between, as in 1,3,224,224", param, ctx)
        return tuple(int(p) for p in parts)


class TripleType(click.ParamType):  # type: ignore[type-arg]
    """`0.485,0.456,0.406` -> three floats; one number stands for all three."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float, float]:
        if isinstance(value, tuple):
            return value[0], value[1], value[2]
        try:
            numbers = [float(p) for p in str(value).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} is not one number or three with commas between, as in 0.485,0.456,0.406", param, ctx)
        return (numbers[0], numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])


SHAPE = ShapeType()
TRIPLE = TripleType()

threads_option = click.option("--threads", type=int, default=None, help="Threads to use. [default: the CPUs this process may use]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
