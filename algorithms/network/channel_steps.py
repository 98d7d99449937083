"""What the steps between layers do to channels: keep them in their places, sum them, scale them by
each other, or join them."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

# Each channel stays by itself and in its place, so that a channel that goes in front goes behind,
# too. First those that bend values.
_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.LeakyReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
)
_ACTIVATION_CALLS = (
    F.relu,
    torch.relu,
    F.relu6,
    F.hardtanh,
    F.silu,
    F.gelu,
    F.hardswish,
    F.hardsigmoid,
    F.leaky_relu,
    F.elu,
    F.mish,
    F.softplus,
    torch.sigmoid,
    torch.tanh,
    torch.clamp,
    torch.abs,
    torch.exp,
    torch.square,
    torch.sqrt,
    "relu",
    "relu_",
    "sigmoid",
    "tanh",
    "clamp",
    "clamp_",
)
_KEEPING = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.ZeroPad2d,
    nn.Upsample,
)
_KEEPING_CALLS = (
    F.dropout,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
    F.interpolate,
    torch.neg,
    operator.neg,
    "contiguous",
    "clone",
)
# Functions of libraries that are not imported here, by name.
_KEEPING_NAMES = ("stochastic_depth",)
_SUMS = (
    operator.add,
    operator.iadd,
    operator.sub,
    operator.isub,
    torch.add,
    torch.sub,
    torch.maximum,
    torch.minimum,
    "add",
    "add_",
    "sub",
)
_PRODUCTS = (
    operator.mul,
    operator.imul,
    operator.truediv,
    operator.itruediv,
    torch.mul,
    torch.div,
    torch.true_divide,
    "mul",
    "mul_",
    "div",
)
_JOINS = (torch.cat, torch.concat)
_MEANS = (torch.mean, "mean")
_RESHAPES = (torch.reshape, "view", "reshape")
_FLATTENS = (torch.flatten, "flatten")
_ADDED_AXES = (torch.unsqueeze, "unsqueeze")
# Of a value with two dimensions, x[:, :, None, None].
_TO_PLANE = (slice(None), slice(None), None, None)

ACTIVATION, KEEPS, SUM, PRODUCT, JOIN = "activation", "keeps", "sum", "product", "join"


def kind_of(node: fx.Node, module: nn.Module | None) -> str | None:
    """ACTIVATION, KEEPS, SUM, PRODUCT or JOIN where the node is one of these whatever its inputs
    are; None for others."""
    if isinstance(module, nn.PReLU):
        return ACTIVATION if module.num_parameters == 1 else None
    if module is not None:
        return (
            ACTIVATION
            if isinstance(module, _ACTIVATIONS)
            else KEEPS
            if isinstance(module, _KEEPING)
            else None
        )
    kinds = (
        (ACTIVATION, _ACTIVATION_CALLS),
        (KEEPS, _KEEPING_CALLS),
        (SUM, _SUMS),
        (PRODUCT, _PRODUCTS),
    )
    for kind, targets in kinds:
        if node.target in targets:
            return kind
    if getattr(node.target, "__name__", "") in _KEEPING_NAMES:
        return KEEPS
    if node.target in _JOINS:
        return JOIN if argument(node, 1, "dim", 0) == 1 else None
    return KEEPS if _pads_the_plane(node) else None


def _pads_the_plane(node: fx.Node) -> bool:
    pads = argument(node, 1, "pad", None) if node.target is F.pad else None
    return isinstance(pads, tuple | list) and len(pads) <= 4


def rank_behind(
    node: fx.Node, module: nn.Module | None, rank: int, sizes: Mapping[fx.Node, int]
) -> int | None:
    """Dimensions of the value behind a step that changes no more than the dimensions behind the
    channels; None for other steps.

    rank: dimensions in front. sizes: nodes that are the value's extent along an axis, with the
    axis.
    """
    if isinstance(module, nn.Flatten):
        return 2 if (module.start_dim, module.end_dim) == (1, -1) else None
    if module is not None:
        return None
    if node.target in _FLATTENS:
        whole = argument(node, 1, "start_dim", 0) == 1 and argument(node, 2, "end_dim", -1) == -1
        return 2 if whole else None
    if node.target in _MEANS:
        return _rank_of_mean(node, rank)
    if node.target in _ADDED_AXES:
        return rank + 1 if argument(node, 1, "dim", 0) in (-1, *range(2, rank + 1)) else None
    if node.target is operator.getitem:
        return 4 if rank == 2 and node.args[1] == _TO_PLANE else None
    return _rank_of_reshape(node, rank, sizes) if node.target in _RESHAPES else None


def _rank_of_mean(node: fx.Node, rank: int) -> int | None:
    dims = argument(node, 1, "dim", None)
    dims = (dims,) if isinstance(dims, int) else dims
    if rank != 4 or not isinstance(dims, tuple | list) or not dims:
        return None
    if not all(isinstance(dim, int) and dim % 4 in (2, 3) for dim in dims):
        return None
    return rank if argument(node, 2, "keepdim", False) else rank - len({d % 4 for d in dims})


def _rank_of_reshape(node: fx.Node, rank: int, sizes: Mapping[fx.Node, int]) -> int | None:
    """(n, -1) and (n, c) of any value, (n, c, 1, 1) of one with two dimensions; n and c read from
    the value."""
    given = argument(node, 1, "shape", ())
    wanted = given if isinstance(given, tuple | list) else node.args[1:]
    if len(wanted) < 2:
        return None
    # A number that is written in the program is told from an axis whose extent is read.
    meant = [("axis", sizes.get(x)) if isinstance(x, fx.Node) else ("number", x) for x in wanted]
    if meant[0] not in (("axis", 0), ("number", 1)):
        return None
    if meant[1:] == [("number", -1)] or meant[1:] == [("axis", 1)]:
        return 2
    behind = [("number", 1)] * 2
    columns = meant[1] in (("number", -1), ("axis", 1))
    return 4 if rank == 2 and columns and meant[2:] == behind else None


def axis_of_size(node: fx.Node, shapes: Mapping[fx.Node, fx.Node]) -> tuple[fx.Node, int] | None:
    """The value whose extent the node is, and along which axis; shapes: nodes that are shapes, with
    their values."""
    if len(node.args) != 2 or not isinstance(node.args[1], int):
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node):
        return None
    if node.target == "size":
        return source, node.args[1]
    if node.target is operator.getitem and source in shapes:
        return shapes[source], node.args[1]
    return None


def is_shape(node: fx.Node) -> bool:
    """Whether the node is a value's shape."""
    whole = node.target == "size" and len(node.args) == 1 and not node.kwargs
    return whole or (node.target is getattr and node.args[1] == "shape")


def argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    """What a function or method is called with, by name or by place."""
    return node.kwargs.get(name, node.args[place] if len(node.args) > place else default)
