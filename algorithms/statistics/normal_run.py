"""Both networks followed without an image: normal variables whose scale the batch norms give, front
to back."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from subpc.algorithms.network.batch_norm import gamma_beta, move_statistics
from subpc.algorithms.statistics.moments import AtLayer, AtNorm
from subpc.algorithms.statistics.normal_channels import (
    PRECISION,
    Field,
    add,
    concatenated,
    images_field,
)
from subpc.algorithms.statistics.normal_layer import LayerField
from subpc.algorithms.statistics.normal_shapes import is_number, reshaped
from subpc.errors import UnsupportedModelError

_TINY = 1e-12
_SUMS = (operator.add, operator.iadd, torch.add)
_JOINS = (torch.cat, torch.concat)
_FUNCTIONS: dict[Any, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "relu_": F.relu,
    torch.relu: F.relu,
    F.relu: F.relu,
    F.relu6: F.relu6,
    F.hardtanh: F.hardtanh,
    F.silu: F.silu,
    F.gelu: F.gelu,
    F.hardswish: F.hardswish,
    F.leaky_relu: F.leaky_relu,
    F.elu: F.elu,
    torch.sigmoid: torch.sigmoid,
    torch.tanh: torch.tanh,
    F.hardsigmoid: F.hardsigmoid,
}
_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.ELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardsigmoid,
)
# Steps that leave each channel's values alike up to a common factor.
_SAME = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)
_SAME_CALLS = (
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.dropout,
    torch.flatten,
    "flatten",
    "view",
    "reshape",
    "mean",
    torch.mean,
    "contiguous",
)


def run_fields(
    graph: fx.Graph,
    networks: tuple[nn.Module, nn.Module],
    at_layer: AtLayer,
    *,
    correct: bool,
    at_norm: AtNorm | None = None,
) -> None:
    """Like run_side_by_side without images: everything is taken as normal, with the correlations
    that filters make.

    Means and variances in front of each activation are those of the batch norm; behind a filter,
    covariances follow from those of its inputs, whose part that the filter sees is scaled to the
    variances of the batch norm behind it. Branches of a sum are taken as independent. Raises
    UnsupportedModelError for a step that is not known.
    """
    _Run(networks, at_layer, at_norm, correct).all(graph)


class _Run:
    """Fields by node, as long as somebody reads them."""

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        at_layer: AtLayer,
        at_norm: AtNorm | None,
        correct: bool,
    ) -> None:
        self.modules = tuple(dict(network.named_modules()) for network in networks)
        self.at_layer, self.at_norm, self.correct = at_layer, at_norm, correct
        self.fields: dict[fx.Node, Field] = {}
        self.correlation = 0.5

    def all(self, graph: fx.Graph) -> None:
        """Every node but the last."""
        last = {source: node for node in graph.nodes for source in node.all_input_nodes}
        for node in graph.nodes:
            if node.op == "output":
                return
            found = self._step(node)
            if found is not None:
                self.fields[node] = found
            for source in node.all_input_nodes:
                if last[source] is node:
                    self.fields.pop(source, None)

    def _step(self, node: fx.Node) -> Field | None:
        if node.op == "placeholder":
            stem = next((m for m in self.modules[0].values() if isinstance(m, nn.Conv2d)), None)
            return images_field(stem.in_channels if stem is not None else 1)
        module = self.modules[0].get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            return self._layer(node, module)
        if isinstance(module, nn.BatchNorm2d):
            return self._norm(node, module)
        sources = [self.fields[source] for source in node.all_input_nodes if source in self.fields]
        return self._other(node, module, sources)

    def _other(self, node: fx.Node, module: nn.Module | None, sources: list[Field]) -> Field | None:
        """Activations, poolings, sums and concatenations."""
        if not sources or is_number(node):
            return None
        if node.target in _SUMS and len(sources) == len(node.args):
            return add(sources)
        if node.target in _JOINS:
            return concatenated(sources)
        if isinstance(module, _ACTIVATIONS):
            return sources[0].through(_out_of_place(module))
        if module is None and node.target in _FUNCTIONS:
            function, options = (
                _FUNCTIONS[node.target],
                {k: v for k, v in node.kwargs.items() if k != "inplace"},
            )
            return sources[0].through(lambda x: function(x, *node.args[1:], **options))
        if isinstance(module, nn.MaxPool2d) or node.target is F.max_pool2d:
            size: Any = module.kernel_size if module is not None else node.args[1]
            return sources[0].largest(
                math.prod(size) if isinstance(size, tuple) else size * size, self.correlation
            )
        if isinstance(module, _SAME) or (module is None and node.target in _SAME_CALLS):
            return sources[0]
        found = reshaped(node, sources[0]) if module is None and len(sources) == 1 else None
        if found is not None:
            return found
        raise UnsupportedModelError(
            f"What {node.target if module is not None else node.name} does to normal variables is"
            " not known.\nFollow the networks with random images (--inputs random, the default),"
            " or give some (--calibration or --synthetic)."
        )

    def _layer(self, node: fx.Node, layer: nn.Module) -> Field | None:
        source, name = node.all_input_nodes[0], str(node.target)
        user = next(iter(node.users)) if len(node.users) == 1 else None
        behind = (
            self.modules[0].get(str(user.target))
            if user is not None and user.op == "call_module"
            else None
        )
        norm = behind if isinstance(behind, nn.BatchNorm2d) else None
        found = LayerField(layer, self.fields[source], norm)
        self.correlation = found.correlation
        kept = self.at_layer(name, found.moments)
        if kept is not None:
            found.keep(kept[source.name])
        changed = self.modules[1][name]
        result = found.outputs(changed)
        bias = getattr(changed, "bias", None)
        if bias is not None and norm is None and self.correct:
            lacking = result.means[0] - result.means[1]
            bias.add_(lacking)
            result = Field(
                means=(result.means[0], result.means[0]), own=result.own, cross=result.cross
            )
        return result

    def _norm(self, node: fx.Node, old: nn.BatchNorm2d) -> Field:
        """Behind the norm the reference has the mean beta and the deviation |gamma|, whatever was
        predicted in front of it."""
        new = self.modules[1][str(node.target)]
        assert (
            isinstance(new, nn.BatchNorm2d)
            and old.running_var is not None
            and old.running_mean is not None
        )
        field = self.fields[node.all_input_nodes[0]]
        before, now = (own.diagonal().clamp(min=_TINY) for own in field.own)
        known = old.running_var
        scale = (known / before).sqrt()
        drift = (field.means[1] - field.means[0]) * scale
        if self.correct:
            move_statistics(new, drift, (now * scale**2 + old.eps) / (known + old.eps))
        if self.at_norm is not None:
            self.at_norm(str(node.target))
        gains, offsets = zip(*(_gain_offset(norm) for norm in (old, new)), strict=True)
        middle = old.running_mean
        centred = field.scaled(
            (scale, scale), (middle - scale * field.means[0], middle - scale * field.means[0])
        )
        return centred.scaled((gains[0], gains[1]), (offsets[0], offsets[1]))


def _gain_offset(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """norm(x) = gain x + offset, (c,) each."""
    gamma, beta = gamma_beta(norm)
    gain = gamma / (norm.running_var.double() + norm.eps).sqrt()  # type: ignore[union-attr]
    offset = beta - gain * norm.running_mean.double()  # type: ignore[union-attr]
    return gain.to(PRECISION), offset.to(PRECISION)


def _out_of_place(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: module(x.clone())
