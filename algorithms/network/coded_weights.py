"""Weights of quantized layers held as their codes alone, a quarter of the memory, but while they
are needed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import attrgetter

import torch
from torch import fx, nn
from torch.utils.hooks import RemovableHandle

from subpc.algorithms.network.checked_copy import set_weight
from subpc.algorithms.numerics.free_memory import give_back_memory
from subpc.algorithms.numerics.quantizers import Quantized


class CodedWeights:
    """Codes of the layers of a checked copy (see checked_copy), whose weights have their values.

    Within `hidden` a layer gets its weight for each call, and gives it up after it: in between it
    has its shape, values that are not a number, and no memory. Weights that others read, too, stay:
    several modules, or the graph itself.
    """

    def __init__(self, modules: Mapping[str, nn.Module], graph: fx.Graph) -> None:
        self.modules = modules
        self.codes: dict[str, Quantized] = {}
        owners = Counter(
            id(module.weight) for module in {*modules.values()} if hasattr(module, "weight")
        )
        read = {
            id(attrgetter(str(node.target))(modules[""]))
            for node in graph.nodes
            if node.op == "get_attr"
        }
        self._stay = {weight for weight, count in owners.items() if count > 1} | read
        self._hides = False
        self._hooks: dict[str, tuple[RemovableHandle, ...]] = {}

    def set(self, name: str, codes: Quantized) -> None:
        """Give the layer the values of these codes."""
        layer = self.modules[name]
        self.codes[name] = codes
        if not self._hides or id(layer.weight) in self._stay:
            self._show(name)
            return
        before, after = (
            layer.register_forward_pre_hook(partial(self._show, name)),
            layer.register_forward_hook(partial(self._hide, name)),
        )
        self._hooks[name] = (before, after)
        self._hide(name)

    @contextmanager
    def hidden(self, hides: bool = True) -> Iterator[None]:
        """Weights that are set are hidden until the context ends; without `hides`, for those who
        read them without a call, not."""
        self._hides = hides
        yield
        self._hides = False
        give_back_memory()
        for name in tuple(self._hooks):
            self.keep_shown(name)

    @contextmanager
    def shown(self, name: str) -> Iterator[None]:
        """The layer has its weight within the context."""
        if name in self._hooks:
            self._show(name)
        yield
        if name in self._hooks:
            self._hide(name)

    def keep_shown(self, name: str) -> None:
        """The layer has its weight for good."""
        if name in self._hooks:
            for hook in self._hooks.pop(name):
                hook.remove()
            self._show(name)

    def _show(self, name: str, *_: object) -> None:
        set_weight(self.modules[name], self.codes[name].dequantize())

    def _hide(self, name: str, *_: object) -> None:
        set_weight(
            self.modules[name], torch.full((), torch.nan).expand(self.codes[name].codes.shape)
        )
