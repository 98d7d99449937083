"""subpc: compiles convolutional networks to fast block-sparse native code for CPUs."""

import importlib
from typing import TYPE_CHECKING, Any

from subpc.errors import (
    CompileError,
    ConfigError,
    ModelFileError,
    SlowLayerWarning,
    SubpcError,
    TargetError,
    UnsupportedModelError,
    WriteError,
)

if TYPE_CHECKING:
    from subpc.comparison import compare
    from subpc.compiler import compile
    from subpc.compression import compress
    from subpc.convenience import compile_and_run
    from subpc.report import CompileReport
    from subpc.runtime import CompiledModel, load
    from subpc.torch_module import as_module

__version__ = "0.1.0"

__all__ = [
    "CompileError",
    "CompileReport",
    "CompiledModel",
    "ConfigError",
    "ModelFileError",
    "SlowLayerWarning",
    "SubpcError",
    "TargetError",
    "UnsupportedModelError",
    "WriteError",
    "as_module",
    "compare",
    "compile",
    "compile_and_run",
    "compress",
    "load",
]

# Resolved at first use: loading a library must not import the compiler, and neither may slow down `subpc --help`.
_LAZY = {
    "as_module": "subpc.torch_module",
    "compare": "subpc.comparison",
    "compile": "subpc.compiler",
    "compile_and_run": "subpc.convenience",
    "compress": "subpc.compression",
    "load": "subpc.runtime",
    "CompiledModel": "subpc.runtime",
    "CompileReport": "subpc.report",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'subpc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
