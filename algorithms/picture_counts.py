"""How many pictures a network is run on, node by node: what is alive at a time has to fit a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

# Bytes that the values of both networks may take, and pictures from which statistics are taken in any case. Early layers have few
# channels and many places, so that few pictures tell all; late ones have few places and many channels, and get all pictures.
BUDGET, FEWEST = 64 << 20, 16
# Pictures that one step is taken on at a time, at most.
_TOGETHER = 8


@dataclass(frozen=True, kw_only=True)
class Counts:
    """at: pictures that each node is run on, never fewer than the node before; together: pictures that the first nodes can take at
    a time; samples: what each node gives for one picture, without its numbers."""

    at: Mapping[fx.Node, int]
    together: int
    samples: Mapping[fx.Node, Any]


def count_pictures(nodes: Sequence[fx.Node], run: fx.Interpreter, picture: torch.Tensor, total: int) -> Counts:
    """For these nodes of a network, from running them on one picture (1, c, h, w); `total` are there."""
    samples: dict[fx.Node, Any] = {}
    alive: list[int] = []
    run.args_iter = iter([picture])
    for node in nodes:
        run.env[node] = run.run_node(node)
        samples[node] = pytree.tree_map_only(torch.Tensor, lambda x: x.to("meta"), run.env[node])
        in_place = _is_norm(node, run)
        if not in_place:
            alive.append(_alive(run.env))
        for done in run.user_to_last_uses.get(node, []):
            del run.env[done]
        if in_place:
            alive.append(_alive(run.env))
    run.env.clear()
    allowed = BUDGET // (2 * max(alive[-1], 1))
    at: dict[fx.Node, int] = {}
    for node, size in zip(reversed(nodes), reversed(alive), strict=True):
        allowed = min(allowed, BUDGET // (2 * max(size, 1)))
        at[node] = min(max(allowed, FEWEST), total)
    return Counts(at=at, together=max(1, min(_TOGETHER, allowed // 4)), samples=samples)


def _is_norm(node: fx.Node, run: fx.Interpreter) -> bool:
    return node.op == "call_module" and isinstance(run.fetch_attr(str(node.target)), nn.BatchNorm2d)


def _alive(env: Mapping[fx.Node, Any]) -> int:
    """Bytes of all values but the network's own tensors; those that share memory count once."""
    leaves = pytree.tree_leaves([value for node, value in env.items() if node.op != "get_attr"])
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in leaves if isinstance(x, torch.Tensor)}
    return sum(storages.values())
