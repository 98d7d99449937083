"""One way to import torchvision, also where only a CPU build of torch is installed.

torchvision's wheel is built against CUDA. Beside a CPU-only torch its compiled operators do not
load, and the plain import fails with "operator torchvision::nms does not exist". Models and
transforms need none of them: declaring the two missing operators is enough.
"""

import importlib
from types import ModuleType

import torch

_MISSING = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# The declarations last as long as this object: dropping it would remove the operators again.
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """torchvision with `torchvision.models` imported; ImportError where it is not installed."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_missing_operators()
        importlib.import_module("torchvision")
    importlib.import_module("torchvision.models")
    return importlib.import_module("torchvision")


def _declare_missing_operators() -> None:
    global _library
    if _library is None:
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in _MISSING:
            _library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]
