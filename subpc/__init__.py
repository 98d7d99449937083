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
    TuningError,
    UnsupportedModelError,
    WriteError,
)

if TYPE_CHECKING:
    from subpc.algorithms.blocks.config import BlockConfig
    from subpc.algorithms.dfmpc.config import DfmpcConfig
    from subpc.algorithms.subp.config import SubpConfig
    from subpc.algorithms.udfc.config import UdfcConfig
    from subpc.comparison.compare import compare
    from subpc.compiler.compile_model import compile
    from subpc.compiler.convenience import compile_and_run
    from subpc.compression.compress import compress, compress_file
    from subpc.library.report import CompileReport
    from subpc.runtime.model import CompiledModel, load
    from subpc.runtime.torch_module import as_module
    from subpc.tuning.tune import tune

__version__ = "0.1.0"

__all__ = [
    "BlockConfig",
    "CompileError",
    "CompileReport",
    "CompiledModel",
    "ConfigError",
    "DfmpcConfig",
    "ModelFileError",
    "SlowLayerWarning",
    "SubpConfig",
    "SubpcError",
    "TargetError",
    "TuningError",
    "UdfcConfig",
    "UnsupportedModelError",
    "WriteError",
    "as_module",
    "compare",
    "compile",
    "compile_and_run",
    "compress",
    "compress_file",
    "load",
    "tune",
]

# Resolved at first use: loading a library must not import the compiler, and neither may slow down
# `subpc --help`.
_LAZY = {
    "as_module": "subpc.runtime.torch_module",
    "compare": "subpc.comparison.compare",
    "compile": "subpc.compiler.compile_model",
    "compile_and_run": "subpc.compiler.convenience",
    "compress": "subpc.compression.compress",
    "compress_file": "subpc.compression.compress",
    "load": "subpc.runtime.model",
    "tune": "subpc.tuning.tune",
    "BlockConfig": "subpc.algorithms.blocks.config",
    "DfmpcConfig": "subpc.algorithms.dfmpc.config",
    "SubpConfig": "subpc.algorithms.subp.config",
    "UdfcConfig": "subpc.algorithms.udfc.config",
    "CompiledModel": "subpc.runtime.model",
    "CompileReport": "subpc.library.report",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'subpc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
