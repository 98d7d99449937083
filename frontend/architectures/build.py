"""Architectures by name: `torchvision:resnet50`, `timm:NAME`, `subpc:resnet20`,
`package.module:function`, or plain `resnet50`."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from torch import nn

from subpc.errors import ConfigError, not_installed
from subpc.frontend.architectures import small_nets
from subpc.frontend.architectures.torchvision_import import import_torchvision
from subpc.frontend.messages import first_line

_ACCEPTED = (
    "torchvision:NAME, timm:NAME, subpc:NAME, package.module:function, or a plain torchvision name"
    " such as resnet50"
)
# Building these fills weights that a state dict replaces at once; torchvision asks for a decision.
_SLOW_INIT = ("googlenet", "inception_v3")


def build_arch(name: str, *, from_file: bool = False, **options: Any) -> nn.Module:
    """The module of `name`, untrained; `from_file` refuses names that would import code the file's
    author chose."""
    source, _, function = name.rpartition(":")
    if source in ("", "torchvision"):
        return _built(name, lambda: _torchvision(function, **options))
    if source == "timm":
        return _built(name, lambda: _timm(function, **options))
    if source == "subpc":
        return _built(name, lambda: small_nets.build(function, **options))
    if from_file:
        raise ConfigError(
            f"The file names the architecture {name!r}; only torchvision:, timm: and subpc: names"
            f" are taken from a file.\nPass --arch {name} if you trust it."
        )
    return _built(name, lambda: _call(source, function, options))


def _built(name: str, build: Callable[[], Any]) -> nn.Module:
    try:
        module = build()
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(f"Architecture {name!r}: {not_installed(error)}") from error
    except Exception as error:
        raise ConfigError(
            f"Architecture {name!r} cannot be built: {type(error).__name__}:"
            f" {first_line(error)}\nAccepted: {_ACCEPTED}."
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"Architecture {name!r} gives a {type(module).__name__}, not a"
            f" torch.nn.Module.\nAccepted: {_ACCEPTED}."
        )
    return module


def _torchvision(name: str, **options: Any) -> nn.Module:
    models = import_torchvision().models
    known = models.list_models()
    if name not in known:
        raise ConfigError(
            f"torchvision has no model {name!r}{_close(name, known)}.\nAccepted: {_ACCEPTED}."
        )
    if name in _SLOW_INIT:
        options.setdefault("init_weights", False)
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options.setdefault("weights_backbone", None)  # the default downloads
    module: nn.Module = models.get_model(name, weights=None, **options)
    return module


def _timm(name: str, **options: Any) -> nn.Module:
    import_torchvision()  # timm imports it, and fails with it
    timm = importlib.import_module("timm")
    if not timm.is_model(name):
        raise ConfigError(
            f"timm has no model {name!r}{_close(name, timm.list_models())}.\nAccepted: {_ACCEPTED}."
        )
    module: nn.Module = timm.create_model(name, pretrained=False, **options)
    return module


def _call(module_name: str, function: str, options: dict[str, Any]) -> Any:
    sys.path.append(os.getcwd())  # a console script does not look there by itself
    try:
        target = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"Architecture {module_name}:{function} is not there: {first_line(error)}\nAccepted:"
            f" {_ACCEPTED}."
        ) from error
    finally:
        sys.path.pop()
    if isinstance(target, nn.Module) or not callable(target):
        found = (
            "a network that is built already"
            if isinstance(target, nn.Module)
            else f"a {type(target).__name__}"
        )
        raise ConfigError(
            f"Architecture {module_name}:{function} is {found}; a function or class that builds the"
            " network is accepted."
        )
    accepted = inspect.signature(target).parameters
    return target(**{key: value for key, value in options.items() if key in accepted})


def _close(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}" if close else ""
