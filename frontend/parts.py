"""A part of a network as a network of its own, and which part of a network that cannot be compiled
whole could be."""

from collections.abc import Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from subpc.errors import ConfigError
from subpc.frontend.messages import MAX_LISTED, printable

# A part is worth a word if it has this share of the weights; a first convolution has not.
_SHARE = 0.1


class Part(nn.Module):
    """Submodules of a model under the names that they have there, each run on what the one before
    returned."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        """parts: by dotted path; the first takes the inputs. What has keys (features by name)
        reaches the next one as a list."""
        super().__init__()
        self.names = tuple(parts)
        for name, part in parts.items():
            *path, last = name.split(".")
            parent: nn.Module = self
            for step in path:
                if step not in parent._modules:
                    parent.add_module(step, nn.Module())
                parent = parent.get_submodule(step)
            parent.add_module(last, part)
        self.train(any(part.training for part in parts.values()))

    @property
    def entry(self) -> nn.Module:
        """The part that takes the inputs, whose names are the network's."""
        return self.get_submodule(self.names[0])

    def forward(self, *inputs: Any) -> Any:
        """What the part returns; with several parts the results of each, by its path."""
        results = {}
        for name in self.names:
            value = self.get_submodule(name)(*inputs)
            inputs = (list(value.values()) if isinstance(value, Mapping) else value,)
            results[name] = value
        return results if len(self.names) > 1 else results[self.names[0]]


def take_part(model: Any, part: str) -> nn.Module:
    """`part` of a model: a dotted path, or several with commas between, each of which takes what
    the one before returns.

    Raises ConfigError where the model has no such part, or none at all.
    """
    if not isinstance(model, nn.Module):
        kind = (
            "An exported program"
            if isinstance(model, ExportedProgram)
            else f"A {type(model).__name__}"
        )
        raise ConfigError(
            f"{kind} has no parts to choose from by part={part!r}.\nExport the part alone, or pass"
            " the torch.nn.Module."
        )
    names = [name.strip() for name in part.split(",")]
    found = {name: _submodule(model, name) for name in names}
    if len(found) < len(names) or any(
        a != b and b.startswith(f"{a}.") for a in names for b in names
    ):
        raise ConfigError(
            f"part={part!r} names something twice; give each part once, in the order in which they"
            " run."
        )
    if isinstance(model, torch.jit.ScriptModule):
        if len(names) > 1:
            raise ConfigError(
                f"part={part!r} names several parts of a script; one is accepted, or the"
                " torch.nn.Module it was made from."
            )
        return found[names[0]]
    return Part(found)


def check_no_part(path: Path, part: str | None) -> None:
    """ConfigError if a part is asked for of a file whose network has no names for its parts."""
    if part is not None:
        raise ConfigError(
            f"{path.name} has no parts to choose from by part={part!r}; give the file that has the"
            " part alone."
        )


def _submodule(model: nn.Module, name: str) -> nn.Module:
    every: dict[str, nn.Module] = {path: module for path, module in model.named_modules() if path}
    if name not in every:
        close = get_close_matches(name, every, n=3)
        shown = ", ".join(
            printable(path)
            for path in close or [path for path, _ in model.named_children()][:MAX_LISTED]
        )
        advice = f"did you mean {shown}?" if close else f"it has {shown or 'none at all'}."
        raise ConfigError(f"The model has no part {printable(name)!r}; {advice}")
    module = every[name]
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        inner = ", ".join(
            f"{name}.{printable(child)}" for child, _ in list(module.named_children())[:MAX_LISTED]
        )
        raise ConfigError(
            f"Part {name!r} is a {type(module).__name__}, which computes nothing itself; its parts"
            f" are {inner or 'none'}."
        )
    return module


class _Calls:
    """The calls of a model's submodules in one run: name, arguments, result."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.made: list[tuple[str, tuple[Any, ...], Any]] = []
        with ExitStack() as hooks, torch.no_grad():
            for name, module in model.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):
                    hooks.callback(module.register_forward_hook(self._hook(name)).remove)
            try:
                model(*inputs)
            except Exception:  # what ran before counts
                return

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
            self.made.append((name, arguments, result))

        return keep


def suggested_part(model: nn.Module, inputs: tuple[Any, ...], *, keyed: bool = False) -> str:
    """Advice for a model that cannot be compiled whole: which part takes tensors and returns them;
    empty where none is found.

    keyed: only a part that returns tensors by name, as the backbones of detectors do.
    """
    if isinstance(model, torch.jit.ScriptModule | Part):
        return ""
    for given in (inputs, (list(inputs),)):  # detectors take a list of images
        calls = _Calls(model, given).made
        first = _first(model, calls)
        if first is not None and (not keyed or isinstance(first[2], Mapping)):
            name = ",".join([first[0], *_followers(calls, first)[:1]])
            shape = " and ".join(",".join(map(str, value.shape)) for value in first[1])
            return (
                f'Compile the part that is a network of tensors: part="{name}" (--part {name});'
                f" here its input is {shape}."
            )
    return ""


def _first(
    model: nn.Module, calls: list[tuple[str, tuple[Any, ...], Any]]
) -> tuple[str, tuple[Any, ...], Any] | None:
    """The first outermost call, of those with a share of the weights, that takes images and returns
    tensors."""
    total = sum(p.numel() for p in model.parameters())
    names = [name for name, _, _ in calls]
    fit = {
        name: (name, arguments, result)
        for name, arguments, result in calls
        if names.count(name) == 1
        and _tensors(list(arguments))
        and all(isinstance(value, torch.Tensor) and value.ndim == 4 for value in arguments)
        and _tensors(result)
        and sum(p.numel() for p in model.get_submodule(name).parameters()) >= _SHARE * total
    }
    outer = _outermost(list(fit))
    return fit[outer[0]] if outer else None


def _followers(
    calls: list[tuple[str, tuple[Any, ...], Any]], first: tuple[str, tuple[Any, ...], Any]
) -> list[str]:
    """Other parts that take just what the first one returns, and return tensors: heads before
    anchors and boxes."""
    taken = [id(value) for value in pytree.tree_leaves(first[2])]
    names = [name for name, _, _ in calls]
    fit = [
        name
        for name, arguments, result in calls
        if names.count(name) == 1
        and isinstance(first[2], Mapping)
        and not name.startswith(f"{first[0]}.")
        and [id(value) for value in pytree.tree_leaves(list(arguments))] == taken
        and _tensors(result)
    ]
    return _outermost(fit)


def _outermost(names: list[str]) -> list[str]:
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _tensors(value: Any) -> bool:
    leaves = pytree.tree_leaves(value)
    return bool(leaves) and all(isinstance(leaf, torch.Tensor) for leaf in leaves)
