"""The data-free compression methods: what `subpc.compress`, the search for a strength and the
command line find them in."""

from typing import Any

from subpc.algorithms.blocks.method import BlocksMethod
from subpc.algorithms.dfmpc.method import DfmpcMethod
from subpc.algorithms.method import CompressionMethod
from subpc.algorithms.udfc.method import UdfcMethod
from subpc.errors import ConfigError

# Name -> method, in the order in which they are listed. A new method is one more here.
METHODS: dict[str, CompressionMethod[Any]] = {
    method.name: method
    for method in (
        UdfcMethod(),
        DfmpcMethod(),
        BlocksMethod(),
    )
}


def method_of(config: object) -> CompressionMethod[Any]:
    """The method whose configuration this is; ConfigError for anything else."""
    for method in METHODS.values():
        if type(config) is method.config:
            return method
    accepted = " or ".join(method.config.__name__ for method in METHODS.values())
    raise ConfigError(
        f"compress takes {accepted}, got {type(config).__name__}.\n"
        "SUBP trains from scratch: see subpc.algorithms.subp, or `subpc compress subp`."
    )
