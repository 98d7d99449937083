"""Installed versions of packages, found without importing them."""

import functools
import importlib.metadata

# The packages that decide what is generated.
GENERATING = ("subpc", "apache-tvm", "torch", "onnx")


@functools.cache  # reading these files would be a twentieth of a small network's compile
def version(package: str) -> str | None:
    """The installed version of a package, found without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """The installed versions of the packages that decide what is generated."""
    found = {package: version(package) for package in GENERATING}
    return {package: installed for package, installed in found.items() if installed is not None}
