"""Options of the form NAME=VALUE."""

from typing import Any

import click


class KeyValue(click.ParamType):  # type: ignore[type-arg]
    """`width=32` -> ("width", 32)."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value[0], value[1]
        key, separator, text = str(value).partition("=")
        if not key or not separator or not text:
            self.fail(f"{value!r} is not NAME=VALUE, as in width=32", param, ctx)
        return key, int(text) if text.removeprefix("-").isdecimal() else text
