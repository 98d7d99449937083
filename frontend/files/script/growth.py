"""Lists and texts of a TorchScript file stay small: a few lines of it double them, or repeat them a
billion times, while it is read.

As with loops, the checks are put into the script, because nothing outside stops its interpreter.
"""

import functools
from typing import Any

import torch

from subpc.frontend.files.script.loops import nodes_within, raising_above

# Elements of a list, or letters of a text. Networks have lists of layers, sizes and anchors.
MOST_ELEMENTS = 1 << 20
_SEQUENCES = ("ListType", "StringType")
_TOO_LONG = f"lists and texts grow beyond {MOST_ELEMENTS:,} elements"
# Their results are as long as their inputs together; what aten::mul makes is as long as a list so
# many times.
_JOINING = frozenset(
    {"aten::add", "aten::add_", "aten::extend", "aten::format", "aten::percentFormat"}
)
_INT = torch._C.IntType.get()
_IN_PLACE = ("aten::add_", "aten::extend")


def bound_growth(unit: Any) -> None:
    """Let the functions in `unit` raise an error before a list or text is longer than a network's;
    they are changed in place."""
    check = raising_above(MOST_ELEMENTS, _TOO_LONG, "%count : int")
    for function in unit.get_functions():
        graph = function.graph
        for node in list(nodes_within(graph)):
            sequences = [value for value in node.inputs() if value.type().kind() in _SEQUENCES]
            if not sequences or node.kind() not in (*_JOINING, "aten::mul"):
                continue
            graph.setInsertPoint(node)
            _bound(graph, node, sequences, check)
        graph.setInsertPoint(graph.return_node())


def too_long(error: BaseException) -> bool:
    """Whether a script was stopped because a list or a text grew."""
    return _TOO_LONG in str(error)


def _bound(graph: Any, node: Any, sequences: list[Any], check: Any) -> None:
    """Let an error be raised before the node runs; and cut its inputs, for PyTorch computes what is
    constant before anything runs."""
    most, inputs = graph.insertConstant(MOST_ELEMENTS), list(node.inputs())
    sizes = [_made(graph, "aten::len", [value], _INT) for value in sequences]
    times = [
        value for value in inputs if node.kind() == "aten::mul" and value.type().kind() == "IntType"
    ]
    product = "aten::mul" if times else "aten::add"
    graph.insertGraph(
        check,
        [functools.reduce(lambda a, b: _made(graph, product, [a, b], _INT), [*sizes, *times])],
    )
    if times:
        room = _made(
            graph,
            "aten::floordiv",
            [most, _made(graph, "prim::max", [sizes[0], graph.insertConstant(1)], _INT)],
            _INT,
        )
        node.replaceInputWith(times[0], _made(graph, "prim::min", [times[0], room], _INT))
    elif node.kind() not in _IN_PLACE:
        whole = [graph.insertConstant(None), most, graph.insertConstant(1)]
        for value in {value.debugName(): value for value in sequences}.values():
            node.replaceInputWith(value, _made(graph, "aten::slice", [value, *whole], value.type()))


def _made(graph: Any, kind: str, inputs: list[Any], type_: Any) -> Any:
    """What an operator makes of these, at the place where the graph is written."""
    node = graph.create(kind, inputs, 1)
    graph.insertNode(node)
    node.output().setType(type_)
    return node.output()
