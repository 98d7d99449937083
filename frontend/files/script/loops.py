"""TorchScript that ends: it is run while it is read, so its loops count, and stop where no network
goes on.

Nothing outside stops TorchScript's interpreter, neither an exception in Python nor Ctrl-C. So the
counting is put into its loops.
"""

from collections.abc import Iterator
from typing import Any

import torch

from subpc.frontend.messages import printable

# All loops of one call together. A network whose loops make more would have more steps than
# anything compiles.
MOST_TURNS = 10_000
# Nodes when every call is replaced by what it calls, which is how PyTorch runs a script: a few
# lines can call each other 2**40 times.
MOST_NODES = 1_000_000
# What lists are sorted of without a call.
_SORTED = frozenset({"IntType", "FloatType", "BoolType", "StringType", "TensorType"})
_TOO_MANY_TURNS = f"the loops make more than {MOST_TURNS:,} turns"
# A list of which all loops know takes one more number, and must not become too long.
_COUNTED = """
  %zero : int = prim::Constant[value=0]()
  %same : int[] = aten::append(%turns, %zero)
  %count : int = aten::len(%turns)"""


def raising_above(most: int, words: str, argument: str, counted: str = "") -> Any:
    """A graph of one argument that raises `words` where %count is above `most`.

    argument, counted: in PyTorch's notation of TorchScript, what the graph takes, and the lines
    that make %count of it; without them it is the argument.
    """
    return torch._C.parse_ir(
        f"""
graph({argument}):{counted}
  %most : int = prim::Constant[value={most}]()
  %kind : str = prim::Constant[value="builtins.RuntimeError"]()
  %said : str = prim::Constant[value="{words}"]()
  %over : bool = aten::gt(%count, %most)
  prim::If(%over)
    block0():
      prim::RaiseException(%said, %kind)
      -> ()
    block1():
      -> ()
  return ()
"""
    )


class Endless(ValueError):
    """A script whose functions may call each other without end."""


def nodes_within(block: Any) -> Iterator[Any]:
    """All nodes of a graph or block, and of the blocks inside."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_within(inner)


def bound_loops(unit: Any, script: Any) -> None:
    """Let every loop that a call of `script` can reach count its turns; Endless where calls cannot
    be counted, or are too many.

    unit: the compilation unit that the script was loaded into; its functions are changed in place,
    and may not have run yet.
    """
    _check_calls(unit, f"{script._type().qualified_name()}.forward")
    torch._C._jit_pass_inline(script._get_method("forward").graph)
    for function in unit.get_functions():
        _count_turns(function.graph)


def too_many_turns(error: BaseException) -> bool:
    """Whether a script was stopped because its loops did not end."""
    return _TOO_MANY_TURNS in str(error)


def _count_turns(graph: Any) -> None:
    loops = [node for node in nodes_within(graph) if node.kind() == "prim::Loop"]
    if not loops:
        return
    turns = graph.create("prim::ListConstruct", [], 1)
    turns.output().setType(torch._C.ListType.ofInts())
    graph.prependNode(turns)
    counting = raising_above(MOST_TURNS, _TOO_MANY_TURNS, "%turns : int[]", _COUNTED)
    for loop in loops:
        body = next(loop.blocks())
        graph.setInsertPoint(next(body.nodes(), body.returnNode()))
        graph.insertGraph(counting, [turns.output()])
    graph.setInsertPoint(graph.return_node())


def _check_calls(unit: Any, forward: str) -> None:
    functions = {function.qualified_name: function for function in unit.get_functions()}
    sizes: dict[str, int] = {}

    def size(name: str) -> int:
        if name not in functions:
            raise Endless(f"what {printable(name)[:80]} calls is found out only when it runs")
        if name not in sizes:
            nodes = list(nodes_within(functions[name].graph))
            sizes[name] = len(nodes)  # also where it calls itself, which PyTorch does not follow
            sizes[name] += sum(size(callee) for node in nodes for callee in _callees(node))
        return sizes[name]

    if size(forward) > MOST_NODES:
        raise Endless(f"its functions call each other more than {MOST_NODES:,} times")


def _callees(node: Any) -> Iterator[str]:
    first: Any = next(node.inputs(), None)
    if node.kind() == "prim::CallMethod":
        yield f"{first.type()}.{node.s('name')}"
    elif node.kind() == "prim::CallFunction":
        yield str(first.type())
    elif node.kind() in ("aten::sort", "aten::sorted") and first.type().kind() == "ListType":
        kind = first.type().getElementType()
        if kind.kind() not in _SORTED:
            yield f"a comparison of {kind}"  # a method, called as often as the list is long
