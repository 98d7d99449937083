"""The JSON in an exported program: every text in it is of a known kind, and what a program does not
need is left out.

PyTorch makes Python source from names, looks operators up by path, imports modules for tree
descriptions and evaluates sizes. So a text is accepted where its key says what it is and it looks
like that; under any other key it has to be a plain name.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from subpc.frontend.files.pt2.expressions import SYMBOL, check_work, guard, size_expression
from subpc.frontend.files.pt2.unsafe import Unsafe
from subpc.frontend.files.safe_operators import program_operator

_IDENTIFIER = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,499})?")
_DOTTED = re.compile(r"[A-Za-z0-9_.@\-]{0,1000}")
_VERSION = re.compile(r"[A-Za-z0-9_.+<>=\-]{0,100}")
_TEXT = re.compile(r"[\x20-\x7e\n]{0,20000}")
_TREE_KEY = re.compile(r"[A-Za-z0-9_.@:/ \-]{1,200}")
_NUMBERS = frozenset(["Infinity", "-Infinity", "NaN"])
_TREES = frozenset(
    [
        "builtins.tuple",
        "builtins.list",
        "builtins.dict",
        "collections.OrderedDict",
        "collections.deque",
        "collections.namedtuple",
    ]
    + [f"torch.fx.immutable_collections.immutable_{kind}" for kind in ("list", "dict")]
)
_MAX_DEPTH, _MAX_INTEGER = 100, 1 << 63


def parse(content: bytes, what: str) -> Any:
    """The value of a JSON text that every reader takes for the same one."""
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise Unsafe(f"{what} is no JSON text: {str(error)[:80]}") from error
    return value


def checked_program(program: Any) -> dict[str, Any]:
    """A program as PyTorch may load it: sample inputs' conditions, stack traces and the like are
    gone."""
    if not isinstance(program, dict):
        raise Unsafe("its program is no JSON object")
    guards = program.get("guards_code", [])
    if not isinstance(guards, list) or not all(isinstance(text, str) for text in guards):
        raise Unsafe("its conditions on inputs are not a list of texts")
    ranges = _ranges(program.get("range_constraints", {}))
    checked = _checked_object({**program, "guards_code": [], "range_constraints": ranges}, 0)
    check_work(_expressions(checked))
    return {**checked, "guards_code": [guard(text) for text in guards]}


def _ranges(ranges: Any) -> dict[str, Any]:
    """The ranges of symbols. Those of expressions (`4*s39`, of derived dimensions) follow from
    these, and PyTorch does not read them."""
    if not isinstance(ranges, dict):
        raise Unsafe("its ranges are of something else than sizes")
    for text in ranges:
        size_expression(text)
    return {text: entry for text, entry in ranges.items() if SYMBOL.fullmatch(text)}


def _expressions(value: Any) -> Iterator[str]:
    for key, entry in (
        value.items() if isinstance(value, dict) else ((None, entry) for entry in value)
    ):
        if isinstance(entry, dict | list):
            yield from _expressions(entry)
        elif key == "expr_str":
            yield str(entry)


def checked_config(config: Any) -> dict[str, Any]:
    """The description of weights or constants: {"config": {name: {...}}}."""
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict) or not all(map(_DOTTED.fullmatch, entries)):
        raise Unsafe("its weights are not described as names with tensors")
    return {"config": {name: _checked(entry, "config") for name, entry in entries.items()}}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _checked(value: Any, key: str = "", depth: int = 0) -> Any:
    """`value` with every text checked by the key it stands under; the entries of a list stand under
    the list's."""
    if depth > _MAX_DEPTH:
        raise Unsafe("it is nested too deeply")
    if isinstance(value, dict):
        return _checked_object(value, depth)
    if isinstance(value, list):
        return [_checked(entry, key, depth + 1) for entry in value]
    if isinstance(value, str):
        return _RULES.get(key, _identifier)(value)
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise Unsafe("it holds a number of more than 64 bits")
    return value


def _checked_object(value: dict[str, Any], depth: int) -> dict[str, Any]:
    if value.get("use_pickle"):
        raise Unsafe("its weights are pickled")
    if value.get("custom_obj_values") or "custom_obj" in value or "as_custom_obj" in value:
        raise Unsafe("it holds objects that are no tensors")
    result = {}
    for key, entry in value.items():
        if not _IDENTIFIER.fullmatch(key) and not _DOTTED.fullmatch(key):
            raise Unsafe(f"it has the name {key[:60]!a}, which is no plain name")
        result[key] = _metadata(entry) if key == "metadata" else _checked(entry, key, depth + 1)
    return result


def _metadata(value: Any) -> dict[str, str]:
    """Of all that is noted about a node only the layer that it comes from is used."""
    stack = value.get("nn_module_stack") if isinstance(value, dict) else None
    return (
        {"nn_module_stack": stack}
        if isinstance(stack, str) and stack and _TEXT.fullmatch(stack) and "\n" not in stack
        else {}
    )


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise Unsafe(f"it has {text[:60]!a} where {what} belongs")
        return text

    return check


def _operator(text: str) -> str:
    if not program_operator(text):
        raise Unsafe(f"it calls {text[:80]!a}, which is not a plain tensor operator")
    return text


def _setting(text: str) -> str:
    """A text that an operator takes. Quotes stand in messages only, and could end a text in source
    that is made of it."""
    return re.sub(r"['\"\\`]", " ", _matching(_TEXT, "a setting of an operator")(text))


def _number(text: str) -> str:
    if text not in _NUMBERS:
        raise Unsafe(f"it has {text[:60]!a} where a number belongs")
    return text


def _tree(text: str) -> str:
    """The structure of inputs or outputs, a JSON text within the JSON."""
    parsed = parse(
        text.encode("utf-8", "surrogatepass"), "the description of its inputs or outputs"
    )
    if not isinstance(parsed, list) or len(parsed) != 2 or parsed[0] != 1:
        raise Unsafe("its inputs or outputs are described in a way that this version does not know")
    _check_tree(parsed[1], 0)
    return json.dumps(parsed)


def _check_tree(tree: Any, depth: int) -> None:
    if (
        not isinstance(tree, dict)
        or set(tree) != {"type", "context", "children_spec"}
        or depth > _MAX_DEPTH
    ):
        raise Unsafe("its inputs or outputs are described in a way that this version does not know")
    kind, context, children = tree["type"], tree["context"], tree["children_spec"]
    if kind is None and context is None and children == []:
        return
    if not isinstance(kind, str) or kind not in _TREES or not isinstance(children, list):
        raise Unsafe(
            f"its inputs or outputs are of the type {str(kind)[:80]!a}; tuples, lists and"
            " dictionaries are accepted"
        )
    if not isinstance(context, str) or not _plain_context(kind, context):
        raise Unsafe("its inputs or outputs name Python objects, which PyTorch would import")
    for child in children:
        _check_tree(child, depth + 1)


def _plain_context(kind: str, context: str) -> bool:
    """Whether the context is what its type needs: keys, a length, the name of a registered type, or
    nothing."""
    if kind == "collections.namedtuple":
        return bool(_DOTTED.fullmatch(context))
    value = parse(
        context.encode("utf-8", "surrogatepass"), "the description of its inputs or outputs"
    )
    if isinstance(value, list):
        return all(
            (isinstance(key, str) and _TREE_KEY.fullmatch(key)) or type(key) is int for key in value
        )
    return value is None or (kind == "collections.deque" and type(value) is int)


_identifier = _matching(_IDENTIFIER, "a plain name")
_dotted = _matching(_DOTTED, "the name of a weight or layer")
_RULES: dict[str, Callable[[str], str]] = {
    "target": _operator,
    "as_operator": _operator,
    "expr_str": size_expression,
    "in_spec": _tree,
    "out_spec": _tree,
    "as_string": _setting,
    "as_strings": _setting,
    "torch_version": _matching(_VERSION, "a version"),
    "verifiers": _identifier,
    **dict.fromkeys(("as_float", "as_floats", "as_float_lists", "real", "imag"), _number),
    **dict.fromkeys(
        (
            "fqn",
            "parameter_name",
            "buffer_name",
            "tensor_constant_name",
            "user_input_name",
            "path_name",
        ),
        _dotted,
    ),
}
