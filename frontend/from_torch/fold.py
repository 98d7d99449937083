"""What an exported program computes from its weights alone, computed once: masks, parametrizations,
standardised and quantised weights."""

import operator
import re
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from subpc.errors import UnsupportedModelError
from subpc.frontend.from_torch.nodes import layer_name
from subpc.frontend.from_torch.quantized import NAMESPACE, codes_of
from subpc.frontend.messages import first_line
from subpc.frontend.plain_graph.reader import Weight

Weights = dict[str, Weight]  # by the name of the placeholder

# What folding may make, each tensor and all that stay: this many elements (1 GiB), or this many
# times what the program has.
LEAST_BOUND, GROWTH = 1 << 28, 4
# Operators that compute tensors, and are run when their operands are known.
_PURE = ("aten", "prims", NAMESPACE)
# What PT2E calls the codes of weights, in the order of the program.
_NAMELESS = re.compile(r"_frozen_param\d+")
# torch.nn.utils.parametrize keeps what a tensor is made of beside it.
_PARAMETRIZED = re.compile(r"(?P<layer>(.*\.)?)parametrizations\.(?P<tensor>\w+)\..*")


def fold_weights(
    program: ExportedProgram, weights: Weights, owned: dict[str, torch.Tensor]
) -> Weights:
    """Replace every float tensor that depends on `owned` tensors (by placeholder) alone by a new
    weight; `weights` with these.

    A new weight is named after what it is made of: `layer3.2.conv2.weight` where that has a
    weight_orig and a mask.
    owned: tensors of any shape. UnsupportedModelError where they make too much, or fail.
    """
    known = {
        node: owned[node.name]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in owned
    }
    made = _depending_on(program.graph, known)
    roots = [
        node
        for node in program.graph.nodes
        if node in made and _is_weight(node) and any(_needs_it(user, made) for user in node.users)
    ]
    bound = max(LEAST_BOUND, GROWTH * sum(value.numel() for value in known.values()))
    if sum(elements(root) for root in roots) > bound:
        raise UnsupportedModelError(
            _too_large("all weights together", sum(elements(root) for root in roots), bound)
        )
    found = dict(weights)
    names = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs}
    names |= {placeholder: weight.name for placeholder, weight in weights.items()}
    for root in roots:
        value = evaluated(root, known, bound)
        name = weight_name(root, known, names)
        placeholder = _new_weight(program, root, value, name)
        found[placeholder] = Weight(name, value, codes_of(root, known))
    program.graph.eliminate_dead_code()
    return found


def constant_nodes(graph: fx.Graph, known: Collection[fx.Node]) -> set[fx.Node]:
    """The known nodes, and those that are computed from them or from nothing: not from what the
    user passes in."""
    constant = set(known)
    for node in graph.nodes:
        if (
            node.op == "call_function"
            and _is_pure(node.target)
            and all(source in constant for source in node.all_input_nodes)
        ):
            constant.add(node)
    return constant


def _depending_on(graph: fx.Graph, known: Collection[fx.Node]) -> set[fx.Node]:
    """The nodes that are computed from known ones, and from nothing that the user passes in."""
    constant, made = constant_nodes(graph, known), set[fx.Node]()
    for node in graph.nodes:
        if node in constant and any(
            source in made or source in known for source in node.all_input_nodes
        ):
            made.add(node)
    return made


def _is_pure(target: Any) -> bool:
    """Whether an operator always makes the same of the same, and does nothing else."""
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in _PURE:
        return False
    return not (
        target._schema.is_mutable
        or torch.Tag.nondeterministic_seeded in target.tags
        or "file" in target.__name__
    )


def _needs_it(user: fx.Node, made: set[fx.Node]) -> bool:
    return user.op == "call_function" and user not in made


def _is_weight(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.ndim > 0


def elements(node: fx.Node) -> int:
    """How many elements a node's value, or values, have."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return sum(int(v.numel()) for v in values if isinstance(v, torch.Tensor))


def evaluated(root: fx.Node, known: dict[fx.Node, torch.Tensor], bound: int) -> torch.Tensor:
    """The value of `root`, computed by PyTorch; what lies between is dropped as soon as nobody
    needs it.

    known: tensors of the shapes in their nodes' `val`; bound: elements that may be there at once,
    else UnsupportedModelError.
    """
    order = list(_ancestors(root, known))
    last = {source: node for node in order for source in node.all_input_nodes}
    values: dict[fx.Node, Any] = dict(known)
    alive = 0
    for node in order:
        alive += elements(node)
        if alive > bound:
            raise UnsupportedModelError(
                _too_large(f"{node.target} in {layer_name(node)}", alive, bound)
            )
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        try:
            with torch.no_grad():
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:
            raise UnsupportedModelError(
                f"A weight of {layer_name(node)} cannot be computed, at {node.target}:"
                f" {first_line(error)}"
            ) from error
        for source in node.all_input_nodes:
            if last[source] is node and source not in known:
                del values[source]
                alive -= elements(source)
    return values[root].detach().contiguous().clone()  # type: ignore[no-any-return]


def _ancestors(root: fx.Node, known: dict[fx.Node, torch.Tensor]) -> Iterator[fx.Node]:
    """What `root` needs, each after what it needs itself, and `root`."""
    needed, stack = set(), [root]
    while stack:
        node = stack.pop()
        if node not in needed and node not in known:
            needed.add(node)
            stack += node.all_input_nodes
    return (node for node in root.graph.nodes if node in needed)


def _too_large(what: str, elements: int, bound: int) -> str:
    return (
        f"The model computes {elements} elements from its weights, at {what}; at most {bound} are"
        " accepted."
    )


def weight_name(root: fx.Node, known: dict[fx.Node, torch.Tensor], names: dict[str, str]) -> str:
    """`conv.weight` for what is made of conv.weight_orig and conv.weight_mask, or of
    conv.parametrizations.weight.original.

    The largest tensor gives the name, of those that belong to the layer where it is used if there
    are any.
    """
    sources = _sources(root, known, names)
    owner = next((layer_name(user) for user in root.users if user.op == "call_function"), "")
    own = {name: size for name, size in sources.items() if name.startswith(owner + ".")} or sources
    if owner and any(_NAMELESS.fullmatch(name) for name in own):
        return f"{owner}.weight"
    return plain_name(max(sorted(own), key=lambda name: own[name])) if own else str(root.name)


def _sources(
    root: fx.Node, known: dict[fx.Node, torch.Tensor], names: dict[str, str]
) -> dict[str, tuple[int, bool]]:
    """The tensors behind `root` with their sizes; of two of one size, the one that is no float (a
    mask) is the smaller one."""
    sources = {
        source
        for node in _ancestors(root, known)
        for source in node.all_input_nodes
        if source in known
    }
    return {
        names[source.name]: (known[source].numel(), known[source].is_floating_point())
        for source in sources
    }


def plain_name(source: str) -> str:
    """The tensor that a user knows: `conv.weight` for conv.weight_v and
    conv.parametrizations.weight.original1."""
    parametrized = _PARAMETRIZED.fullmatch(source)
    if parametrized is not None:
        return f"{parametrized['layer']}{parametrized['tensor']}"
    layer, dot, tensor = source.rpartition(".")
    return f"{layer}{dot}weight" if tensor.startswith("weight") else source


def _new_weight(program: ExportedProgram, root: fx.Node, value: torch.Tensor, name: str) -> str:
    """Let the program read `value` instead of computing `root`; the name of the placeholder."""
    graph = program.graph
    first = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_before(first):
        placeholder = graph.placeholder(f"folded_{root.name}")
    placeholder.meta["val"] = root.meta["val"]
    root.replace_all_uses_with(placeholder)
    target = f"{name}!{placeholder.name}"  # no user's tensor has this name
    program.graph_signature.input_specs.insert(
        0, InputSpec(InputKind.PARAMETER, TensorArgument(placeholder.name), target)
    )
    program.state_dict[target] = value
    return str(placeholder.name)
