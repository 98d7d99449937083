"""What a node of an exported program says: its layer, and its arguments by name."""

from typing import Any

from torch import fx

from subpc.frontend.messages import printable


def layer_name(node: fx.Node) -> str:
    """The path of the innermost module that the node comes from, such as `layer1.0.conv1`."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return (
        printable(path.removeprefix("L['self'].").removeprefix("L['self']")) or "the model itself"
    )


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments by name, with the defaults of the operator's schema."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    defaults = {
        argument.name: argument.default_value for argument in schema if argument.has_default_value()
    }
    positional = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    return {**defaults, **positional, **node.kwargs}
