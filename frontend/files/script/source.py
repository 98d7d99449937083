"""The source in a TorchScript file, before PyTorch compiles it: only what PyTorch's writer writes,
and nothing that grows or runs while it is loaded.

While it loads a file, PyTorch runs what default values and values of attributes say, and computes
what constants alone make: thirty lines that double a text take gigabytes. So both are looked at in
the source, which PyTorch then gets written anew from what was understood, so that it cannot read
something else in it.
"""

import ast
import math
from collections.abc import Iterable

from subpc.frontend.files.script.constants import (
    Constant,
    Value,
    computed,
    larger,
    literal,
    together,
)

# What constants may make in all sources of a file together: letters, and entries of tuples.
MOST_MADE = 1 << 20
# Expressions within expressions. PyTorch compiles them by recursion, and the stack of a process
# ends.
_DEEPEST = 100
# First names of paths: operators, functions and classes of the file, what the file holds.
_OPERATORS, _OWN = ("torch", "ops"), ("__torch__", "self", "CONSTANTS")
_RESERVED = frozenset((*_OPERATORS, *_OWN))
_NUMBERS = frozenset({"inf", "infj", "nan", "nanj"})
# Functions whose first argument, or second in isinstance, is a type.
_TYPED = {"annotate": 0, "unchecked_cast": 0, "uninitialized": 0, "isinstance": 1}
_STATEMENTS = (ast.AnnAssign, ast.Assign, ast.Expr, ast.Return, ast.If, ast.While, ast.For)


class Unwritten(ValueError):
    """Source that PyTorch's writer does not write."""


def checked_source(members: dict[str, bytes]) -> dict[str, bytes]:
    """`members` of an archive with each file of source (`code/...`) written anew; Unwritten for
    what PyTorch's writer does not write, and for constants that make more than MOST_MADE."""
    checker = _Checker()
    return {
        name: checker.written(content) if name.startswith("code/") else content
        for name, content in members.items()
    }


class _Checker:
    def __init__(self) -> None:
        self.made = 0
        self.known: dict[str, Value] = {}  # the variables of a function

    def written(self, content: bytes) -> bytes:
        """The source of one file, checked."""
        try:
            tree = ast.parse(content)
            if _depth(tree) > _DEEPEST:
                raise Unwritten(f"expressions more than {_DEEPEST} deep")
            for statement in tree.body:
                self._definition(statement)
            return f"{ast.unparse(_Texts().visit(tree))}\n".encode()
        except (SyntaxError, RecursionError, MemoryError, UnicodeError) as error:
            raise Unwritten("lines that cannot be parsed") from error

    def _definition(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef):
            self._function(statement)
        elif isinstance(statement, ast.ClassDef):
            if statement.decorator_list or statement.keywords:
                raise _strange(statement)
            for entry in statement.body:
                if isinstance(entry, ast.FunctionDef):
                    self._function(entry)
                elif isinstance(entry, ast.AnnAssign | ast.Assign):
                    self._attribute(entry)
                elif not isinstance(entry, ast.Pass):
                    raise _strange(entry)
        elif not (isinstance(statement, ast.Assign) and _is_plain(statement.value)):
            raise _strange(statement)  # beside op_version_set = 1

    def _attribute(self, entry: ast.AnnAssign | ast.Assign) -> None:
        """A line of a class: `name : Type`, `__annotations__["0"] = Type`, or a plain value."""
        target = entry.target if isinstance(entry, ast.AnnAssign) else entry.targets[0]
        is_type = (
            isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Name)
            and target.value.id == "__annotations__"
        )
        if entry.value is not None and not is_type and not _is_plain(entry.value):
            raise Unwritten("an attribute whose value is computed")

    def _function(self, function: ast.FunctionDef) -> None:
        arguments = function.args
        if function.decorator_list or not all(
            map(_is_plain, (*arguments.defaults, *filter(None, arguments.kw_defaults)))
        ):
            raise Unwritten("an argument whose default is computed")
        outside = self.known
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        self.known = {**outside, **{argument.arg: None for argument in named}}
        self._body(function.body)
        self.known = outside

    def _body(self, statements: Iterable[ast.stmt]) -> None:
        """Each line once, as PyTorch computes constants: what a loop changes is none."""
        for statement in statements:
            if isinstance(statement, ast.FunctionDef):
                self._function(statement)
            elif isinstance(statement, ast.With):
                for item in statement.items:
                    self._assign(item.optional_vars, self._value(item.context_expr))
                self._body(statement.body)
            elif isinstance(statement, _STATEMENTS):
                self._statement(statement)
            elif not isinstance(statement, ast.Pass | ast.Break | ast.Continue):
                raise _strange(statement)

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            value = self._value(statement.value)
            for target in statement.targets:
                self._assign(target, value)
        elif isinstance(statement, ast.For):
            self._value(statement.iter)
            self._assign(statement.target, None)
            self._body((*statement.body, *statement.orelse))
        elif isinstance(statement, ast.If | ast.While):
            self._value(statement.test)
            self._body((*statement.body, *statement.orelse))
        elif isinstance(statement, ast.AnnAssign):
            value = None if statement.value is None else self._value(statement.value)
            self._assign(statement.target, value)
        elif isinstance(statement, ast.Expr | ast.Return) and statement.value is not None:
            self._value(statement.value)

    def _assign(self, target: ast.expr | None, value: Value) -> None:
        """Keep the larger one of what a variable may be: the lines may be in a branch."""
        if isinstance(target, ast.Tuple | ast.List):
            for entry in target.elts:
                self._assign(entry, value)
        elif isinstance(target, ast.Name):
            if target.id in _RESERVED:
                raise Unwritten(f"a variable {target.id}")
            before = self.known.get(target.id)
            self.known[target.id] = larger(before, value) if before and value else before or value
        elif target is not None:
            self._value(target)

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant):
            if not isinstance(node.value, str | bool | int | float | None):
                raise _strange(node)
            return literal(node.value)
        if isinstance(node, ast.Name):
            if node.id not in self.known and node.id not in (*_OWN, *_NUMBERS):
                raise Unwritten(f"another name of {node.id[:80]}")
            return literal(math.inf) if node.id in _NUMBERS else self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._value(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._value(node.operand)
        if isinstance(node, ast.Tuple):
            return self._together([self._value(entry) for entry in node.elts])
        if isinstance(node, ast.List | ast.Dict):
            entries = node.elts if isinstance(node, ast.List) else [*node.keys, *node.values]
            for entry in filter(None, entries):
                self._value(entry)
            return None
        if isinstance(node, ast.Subscript):
            return self._part(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise _strange(node)

    def _part(self, node: ast.Subscript) -> Value:
        if isinstance(node.slice, ast.Slice):
            bounds = (node.slice.lower, node.slice.upper, node.slice.step)
            for bound in filter(None, bounds):
                self._value(bound)
        else:
            self._value(node.slice)
        return self._value(node.value)

    def _together(self, values: list[Value]) -> Value:
        constants = [value for value in values if value is not None]
        whole = together(constants)
        self._make(whole)
        return whole if len(constants) == len(values) else None

    def _call(self, node: ast.Call) -> Value:
        if not isinstance(node.func, ast.Name | ast.Attribute):
            raise Unwritten("a call of what is computed")
        first, name = _first_name(node.func), _last_name(node.func)
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(node.func, ast.Name) and name in _TYPED:
            del arguments[_TYPED[name]]
            values = [self._value(argument) for argument in arguments]
            return values[0] if name != "isinstance" and values else None
        values = [self._value(argument) for argument in arguments]
        if isinstance(node.func, ast.Attribute) and first not in _OPERATORS:
            values.append(self._value(node.func.value))  # a method of a value
        if first in _OWN or not all(values):
            return None
        made = computed(name, [value for value in values if value is not None])
        if made.text:
            self._make(made)
        return made

    def _make(self, made: Constant) -> None:
        self.made += made.size
        if self.made > MOST_MADE:
            raise Unwritten(f"constants that make more than {MOST_MADE:,} letters or entries")


class _Texts(ast.NodeTransformer):
    """Texts as PyTorch reads them: it knows octal escapes of bytes, and not all of Python's."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """A text becomes what `ast.unparse` writes as it stands."""
        if not isinstance(node.value, str):
            return node
        letters = "".join(
            letter
            if letter.isascii() and letter.isprintable() and letter not in '"\\'
            else "".join(f"\\{byte:03o}" for byte in _bytes(letter))
            for letter in node.value
        )
        return ast.Name(f'"{letters}"')


def _bytes(letter: str) -> bytes:
    """PyTorch's writer escapes each byte of a letter, and Python reads each as a letter."""
    return letter.encode("latin-1" if ord(letter) < 256 else "utf-8")


def _is_plain(node: ast.expr) -> bool:
    """A number, text or tensor of the file, or a tuple or list of them: nothing to compute."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bool | int | float | None)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant | ast.Name)
    if isinstance(node, ast.Tuple | ast.List):
        return all(map(_is_plain, node.elts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "annotate" and len(node.args) == 2 and _is_plain(node.args[1])
    if isinstance(node, ast.Attribute):
        return _first_name(node) in ("CONSTANTS", "__torch__")
    return isinstance(node, ast.Name) and node.id in _NUMBERS


def _first_name(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _last_name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _depth(tree: ast.AST) -> int:
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _strange(node: ast.AST) -> Unwritten:
    return Unwritten(f"the expression or statement {type(node).__name__}")
