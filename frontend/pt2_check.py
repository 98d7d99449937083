"""Whether a torch.export file is data only. torch.export.load trusts its input more than its name suggests:

it falls back to full unpickling for sample inputs, unpickles tensors marked `use_pickle` and custom objects, loads compiled
libraries, looks operators up by attribute path from `torch` (which reaches `os`), and evaluates symbolic shapes and guards as
Python. A file from `torch.export.save` of an ordinary network needs none of that, so everything outside an allow-list is refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_OPERATOR = re.compile(r"torch\.ops\.(aten|torchvision|higher_order)\.(?!__(?!and__|or__|xor__))\w+(\.(?!__)\w+)?")
_PYTHON_OPERATOR = re.compile(
    r"(_operator\.(getitem|add|sub|mul|neg|mod|pow|floordiv|truediv|eq|ne|lt|le|gt|ge|and_|or_)|math\.(ceil|floor|trunc|sqrt))"
)
_SYMBOLIC = re.compile(r"torch\.sym_(int|float|max|min|not|sqrt)")

_EXPRESSION_WORD = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|PythonMod|CleanDiv|CeilDiv|CeilToInt|FloorToInt|IntTrueDiv"
    "|positive|negative|nonnegative|integer|evaluate|True|False|Eq|Ne|Ge|Le|Gt|Lt|L|size|and|or|not"
    r"|[suz]+\d+"  # the symbols themselves
)
_EXPRESSION = re.compile(r"[\w\s'()\[\],.+\-*/%<>=!]*")
_EVALUATED_KEYS = frozenset({"expr_str", "guards_code"})
# Tree descriptions that name Python modules to import.
_IMPORTING = ("__enum__", "default_factory")

_SAFE_MEMBERS = re.compile(
    r"(data/weights/(weight_\d+|\w+\.json)|data/constants/(tensor_\d+|\w+\.json)|models/\w+\.json|data/sample_inputs/\w+\.pt"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.format_version|version|extra/.*)"
)


def unsafe_reason(path: Path) -> str | None:
    """Why loading `path` could run code that its author wrote, or None where it cannot."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            reason = _member_reason(name.split("/", 1)[-1], archive.read(name))
            if reason is not None:
                return reason
    return None


def _member_reason(name: str, content: bytes) -> str | None:
    if not _SAFE_MEMBERS.fullmatch(name):
        return f"it holds {name}, which torch.export.save does not write for a plain network"
    if name.startswith("data/sample_inputs/"):
        return _sample_reason(content)
    if name.endswith(".json"):
        return _json_reason(content)
    return None


def _sample_reason(content: bytes) -> str | None:
    try:
        if content:
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        return "its sample inputs hold pickled Python objects"
    return None


def _json_reason(content: bytes) -> str | None:
    text = content.decode("utf-8", errors="strict")
    if any(word in text for word in _IMPORTING):
        return "its inputs or outputs name Python modules to import"
    for key, value in _entries(json.loads(text)):
        if key == "use_pickle" and value:
            return "its weights are pickled"
        if key == "target" and isinstance(value, str) and not _known_operator(value):
            return f"it calls {value[:80]}, which is not a plain tensor operator"
        if key in _EVALUATED_KEYS and isinstance(value, str) and not _plain_expression(value):
            return f"it holds an expression to evaluate: {value[:80]}"
    return None


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, leaf) of nested objects; the leaves of a list carry the key of the list."""
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        key, item = stack.pop()
        if isinstance(item, dict):
            stack.extend((str(k), v) for k, v in item.items())
        elif isinstance(item, list):
            stack.extend((key, v) for v in item)
        else:
            yield key, item


def _known_operator(target: str) -> bool:
    # A "target" is also the name of a parameter in the signature: those are looked up, never resolved to Python objects.
    patterns = (_OPERATOR, _PYTHON_OPERATOR, _SYMBOLIC)
    return any(p.fullmatch(target) for p in patterns) or not target.startswith(("torch", "_operator", "math", "#"))


def _plain_expression(text: str) -> bool:
    words = re.findall(r"[A-Za-z_]\w*", re.sub(r"'\w+'", "", text))
    return bool(_EXPRESSION.fullmatch(text)) and all(_EXPRESSION_WORD.fullmatch(word) for word in words)
