"""ONNX to Relax."""

from pathlib import Path

from subpc.errors import UnsupportedModelError
from subpc.frontend.imported import ImportedModel


def import_onnx(path: Path, shapes: list[list[tuple[int, ...]]]) -> list[ImportedModel]:
    """One imported model per entry of `shapes`."""
    raise UnsupportedModelError("ONNX is not supported yet.")
