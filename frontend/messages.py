"""Words that several importers use in their errors."""

import re

from subpc.text import LONGEST_WORD, shortened
from subpc.text import printable as text_printable

# Longer lists help nobody.
MAX_LISTED = 8

# How TVM prints an operator in the middle of a sentence.
_OPERATOR = re.compile(r'ir\.Op\(.*?name="([^"]+)".*?support_level=\d+\)')


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error message that says something, cut to `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].endswith("failed in the TorchScript interpreter."):
        lines = lines[-1:]  # before it stands where, behind it why
    text = _OPERATOR.sub(r"\1", lines[0]) if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(name: str | bytes) -> str:
    """A name from a file, fit for one line of a terminal: line breaks and control characters are
    escaped, and the middle of a long one is left out.

    Protobuf gives a string field that is not UTF-8 as bytes.
    """
    text = name if isinstance(name, str) else name.decode(errors="backslashreplace")
    return text_printable(shortened(text, LONGEST_WORD))


def describe_unsupported(missing: dict[str, list[str]]) -> str:
    """`operator (in layer, layer)` for each entry, all in one line; empty where nothing is
    missing."""
    if not missing:
        return ""
    parts = []
    for operator, layers in sorted(missing.items()):
        unique = list(dict.fromkeys(printable(layer) for layer in layers))
        more = f", and {len(unique) - MAX_LISTED} more" if len(unique) > MAX_LISTED else ""
        parts.append(f"{printable(operator)} (in {', '.join(unique[:MAX_LISTED])}{more})")
    plural = "s" if len(parts) > 1 else ""
    return (
        f"{len(parts)} unsupported operator{plural}: {'; '.join(parts)}\nReplace these layers in"
        " the model before compiling."
    )


def layer_of(param_name: str) -> str:
    """`layer1.0.conv1` for `layer1.0.conv1.weight`."""
    layer, _, _ = param_name.rpartition(".")
    return layer or param_name
