"""Expressions in an exported program: sizes as sympy writes them, and conditions on inputs. Both
are parsed, never evaluated as text."""

import ast
import re
from collections.abc import Iterable, Sequence

from subpc.errors import ModelFileError
from subpc.frontend.files.safe_operators import names

SYMBOL = re.compile(r"(s|u|zf|zuf)\d{1,4}")
_FLOAT = re.compile(r"-?\d{1,40}(\.\d{0,40})?(e[-+]?\d{1,2})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_MAX_TEXT, _MAX_NODES, _MAX_BITS, _MAX_EXPONENT = 20_000, 4_000, 4_096, 16
# sympy compares every two arguments of a maximum, and simplifies nested calls again at every level.
_MAX_CALLS, _MAX_EXTREMES, _MAX_WORK = 600, 24, 5_000_000
# Everything that a symbol may be said to be.
_ASSUMPTIONS = names("positive nonnegative negative nonpositive integer real finite zero nonzero")
_FUNCTIONS = names(
    "Add Mul Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv CeilToInt FloorToInt TruncToInt"
    " TruncToFloat RoundToInt IntTrueDiv FloatTrueDiv ModularIndexing ToFloat Identity Where"
    " IsNonOverlappingAndDenseIndicator Equality Unequality GreaterThan LessThan StrictGreaterThan"
    " StrictLessThan Eq Ne Ge Le Gt Lt And Or Not Abs Piecewise ExprCondPair Tuple"
)
_POWERS = names("Pow PowByNatural FloatPow")
_PRODUCTS = frozenset(["Mul"])
GUARD_FUNCTIONS = names(
    "max min abs Mod PythonMod FloorDiv CleanDiv CeilDiv CeilToInt FloorToInt TruncToInt ToFloat"
    " IntTrueDiv FloatTrueDiv And Or Not Eq Ne Ge Le Gt Lt Max Min"
)
_GUARD_OPERATORS = (
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.FloorDiv,
    ast.Mod,
    ast.Div,
    ast.USub,
    ast.UAdd,
    ast.Not,
    ast.And,
    ast.Or,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
)


class NotPlain(ModelFileError):
    """An expression does more than compute sizes."""


def size_expression(text: str) -> str:
    """The expression, written anew from what was understood of it; NotPlain for anything else."""
    tree = _parsed(text)
    if _bits(tree) > _MAX_BITS:
        raise NotPlain(f"its sizes would have thousands of digits: {text[:60]}")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    extremes = sum(
        len(node.args)
        for node in calls
        if isinstance(node.func, ast.Name) and node.func.id in ("Max", "Min")
    )
    if len(calls) > _MAX_CALLS or extremes > _MAX_EXTREMES:
        raise NotPlain(f"its sizes would take too long to work out: {text[:60]}")
    return ast.unparse(tree)


def check_work(texts: Iterable[str]) -> None:
    """NotPlain where all these expressions together would keep sympy busy for minutes."""
    if sum(text.count("(") ** 2 for text in set(texts)) > _MAX_WORK:
        raise NotPlain("its sizes would take too long to work out")


def guard(text: str) -> str:
    """The condition, written anew from what was understood of it; NotPlain for anything else."""
    tree = _parsed(text)
    _check_guard(tree)
    return ast.unparse(tree)


def _parsed(text: str) -> ast.expr:
    try:
        if not text.isascii() or len(text) > _MAX_TEXT:
            raise NotPlain(
                "it holds an expression to evaluate that is too long or not plain text:"
                f" {text[:60]!a}"
            )
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotPlain(
            f"it holds an expression to evaluate that is malformed: {text[:60]!a}"
        ) from error
    if sum(1 for _ in ast.walk(tree)) > _MAX_NODES:
        raise NotPlain(f"it holds an expression to evaluate that is too long: {text[:60]!a}")
    return tree


def _refused(node: ast.AST) -> NotPlain:
    return NotPlain(f"it holds an expression to evaluate: {ast.unparse(node)[:80]!a}")


def _bits(node: ast.expr) -> int:
    """A bound on the size of the value in bits, after checking that `node` is of the grammar."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call_bits(node, node.func.id)
    if isinstance(node, ast.Name) and (SYMBOL.fullmatch(node.id) or node.id in ("true", "false")):
        return 64
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value.bit_length()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _bits(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.Add | ast.Sub | ast.FloorDiv | ast.Mod | ast.Div
    ):
        return max(_bits(node.left), _bits(node.right)) + 1
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _bits(node.left) + _bits(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power_bits(node, [node.left, node.right])
    if isinstance(node, ast.Compare) and all(isinstance(op, _GUARD_OPERATORS) for op in node.ops):
        return max(map(_bits, [node.left, *node.comparators]))
    raise _refused(node)


def _call_bits(node: ast.Call, name: str) -> int:
    if name == "Symbol":
        return _symbol_bits(node)
    if name == "Float":
        return _float_bits(node)
    if node.keywords:
        raise _refused(node)
    if name in ("Integer", "Rational"):
        if not 1 <= len(node.args) <= 2 or not all(map(_is_integer, node.args)):
            raise _refused(node)
        return max(map(_bits, node.args))
    if name in _POWERS:
        return _power_bits(node, node.args)
    if name not in _FUNCTIONS:
        raise _refused(node)
    sizes = [_bits(argument) for argument in node.args]
    return sum(sizes) if name in _PRODUCTS else max(sizes, default=0) + len(sizes)


def _is_integer(node: ast.expr) -> bool:
    inner = (
        node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
    )
    return isinstance(inner, ast.Constant) and type(inner.value) is int


def _power_bits(node: ast.expr, parts: Sequence[ast.expr]) -> int:
    exponent = parts[1] if len(parts) == 2 else None
    if (
        isinstance(exponent, ast.Call)
        and isinstance(exponent.func, ast.Name)
        and exponent.func.id == "Integer"
        and len(exponent.args) == 1
    ):
        exponent = exponent.args[0]
    if exponent is None or not _is_integer(exponent) or _exponent(exponent) > _MAX_EXPONENT:
        raise _refused(node)
    return _bits(parts[0]) * max(1, _exponent(exponent))


def _exponent(node: ast.expr) -> int:
    return abs(int(ast.literal_eval(node)))


def _symbol_bits(node: ast.Call) -> int:
    name = node.args[0] if len(node.args) == 1 else None
    if (
        not isinstance(name, ast.Constant)
        or not isinstance(name.value, str)
        or not SYMBOL.fullmatch(name.value)
    ):
        raise _refused(node)
    for keyword in node.keywords:
        if (
            keyword.arg not in _ASSUMPTIONS
            or not isinstance(keyword.value, ast.Constant)
            or type(keyword.value.value) is not bool
        ):
            raise _refused(node)
    return 64


def _float_bits(node: ast.Call) -> int:
    value = node.args[0] if len(node.args) == 1 else None
    if (
        not isinstance(value, ast.Constant)
        or not isinstance(value.value, str)
        or not _FLOAT.fullmatch(value.value)
    ):
        raise _refused(node)
    for keyword in node.keywords:
        if (
            keyword.arg != "precision"
            or not isinstance(keyword.value, ast.Constant)
            or keyword.value.value not in (24, 53)
        ):
            raise _refused(node)
    return 512


def _check_guard(node: ast.AST) -> None:
    """Comparisons and arithmetic of `L['input'][key].size()[dimension]`."""
    if isinstance(node, ast.Call):
        _check_guard_call(node)
    elif isinstance(node, ast.Subscript):
        _check_index(node.slice)
        if not _is_inputs(node.value):
            _check_guard(node.value)
    elif isinstance(node, ast.Constant):
        if not isinstance(node.value, int | float) or abs(node.value) > 1 << 64:
            raise _refused(node)
    elif isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, _GUARD_OPERATORS):
                _check_guard(child)
    else:
        raise _refused(node)


def _is_inputs(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "L"


def _check_index(node: ast.expr) -> None:
    value = node.value if isinstance(node, ast.Constant) else None
    named = isinstance(value, str) and _NAME.fullmatch(value)
    numbered = type(value) is int and value < 1 << 16
    if not named and not numbered:
        raise _refused(node)


def _check_guard_call(node: ast.Call) -> None:
    if node.keywords:
        raise _refused(node)
    if isinstance(node.func, ast.Attribute):
        if node.func.attr not in ("size", "stride", "storage_offset") or node.args:
            raise _refused(node)
        _check_guard(node.func.value)
        return
    if not isinstance(node.func, ast.Name) or node.func.id not in GUARD_FUNCTIONS:
        raise _refused(node)
    for argument in node.args:
        _check_guard(argument)
