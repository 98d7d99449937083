"""What batch norms say of the results of the layers in front of them, before they are folded into
these."""

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from subpc.passes import ops
from subpc.passes.dataflow import Dataflow, constant_of


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Mean and standard deviation (C,) of each channel behind a batch norm, on the images that the
    network was trained with."""

    mean: np.ndarray
    deviation: np.ndarray


def norm_statistics(module: tvm.IRModule) -> dict[str, Norm]:
    """By name, for each layer whose result a batch norm alone reads. Run before fold_affine."""
    graph = Dataflow(module["main"])
    users = graph.users()
    found: dict[str, Norm] = {}
    for _, call in graph.calls("relax.nn.batch_norm"):
        layer = _read_alone(graph, users, call.args[0])
        if layer is None:
            continue
        gamma, beta, _, variance = (constant_of(graph.resolve(arg)) for arg in call.args[1:5])
        if gamma is None or beta is None or variance is None:
            continue
        share = np.sqrt(variance / (variance + float(call.attrs.epsilon)))
        found[ops.attributes(layer)["name"]] = Norm(mean=beta, deviation=np.abs(gamma) * share)
    return found


def _read_alone(
    graph: Dataflow, users: dict[relax.Var, list[relax.Var | None]], value: relax.Expr
) -> relax.Call | None:
    """The layer behind a value, a bias between them or not, if nobody else reads its result."""
    value = graph.resolve(value)
    if not isinstance(value, relax.Var) or len(users[value]) != 1:
        return None
    add = graph.call(value, "relax.add")
    if add is None:
        return graph.call(value, *ops.LAYERS)
    left, right = (graph.resolve(arg) for arg in add.args)
    if constant_of(right) is None or not isinstance(left, relax.Var) or len(users[left]) != 1:
        return None
    return graph.call(left, *ops.LAYERS)
