"""Where block-sparse kernels are used: what a compile may be asked for. Needs no TVM."""

from subpc.errors import ConfigError

# Where they are expected to be faster, nowhere, wherever there is a pattern.
SPARSE_MODES = ("auto", "off", "always")


def check_sparse(mode: str) -> None:
    """ConfigError unless `mode` is one of SPARSE_MODES."""
    if mode not in SPARSE_MODES:
        raise ConfigError(f"sparse={mode!r} is not known; accepted: {', '.join(SPARSE_MODES)}")
