"""How many images a network is run on, node by node, and what an image takes there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

# Early layers have few channels and many places, so that few images are enough; late ones have few
# places and many channels, and get all images: as many as have so many bytes of values in both
# networks, when they are run node by node, and never fewer than FEWEST.
VALUES, FEWEST = 64 << 20, 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """at: images that each node is run on, never fewer than the node before; sizes: bytes that a
    node gives for one image, 0 where that is not one tensor with a row for it."""

    at: Mapping[fx.Node, int]
    sizes: Mapping[fx.Node, int]


def plan_images(
    nodes: Sequence[fx.Node], run: fx.Interpreter, image: torch.Tensor, total: int
) -> Plan:
    """For these nodes of a network, from running them on one image (1, c, h, w); `total` are
    there."""
    sizes: dict[fx.Node, int] = {}
    alive: list[int] = []
    run.args_iter = iter([image])
    for node in nodes:
        value = run.env[node] = run.run_node(node)
        row = isinstance(value, torch.Tensor) and value.shape[:1] == (1,) and node.op != "get_attr"
        sizes[node] = value.nbytes if row else 0
        most = _alive(run.env)
        for done in run.user_to_last_uses.get(node, []):
            del run.env[done]
        alive.append(
            _alive(run.env) if _is_norm(node, run) else most
        )  # norms could write over what they read
    run.env.clear()
    allowed = total
    at: dict[fx.Node, int] = {}
    for node, size in zip(reversed(nodes), reversed(alive), strict=True):
        allowed = min(allowed, VALUES // (2 * max(size, 1)))
        at[node] = max(allowed, min(FEWEST, total))
    return Plan(at=at, sizes=sizes)


def _is_norm(node: fx.Node, run: fx.Interpreter) -> bool:
    return node.op == "call_module" and isinstance(run.fetch_attr(str(node.target)), nn.BatchNorm2d)


def _alive(env: Mapping[fx.Node, Any]) -> int:
    """Bytes of all values but the network's own tensors; those that share memory count once."""
    leaves = pytree.tree_leaves([value for node, value in env.items() if node.op != "get_attr"])
    storages = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for x in leaves
        if isinstance(x, torch.Tensor)
    }
    return sum(storages.values())
