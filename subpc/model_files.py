"""The files that a model consists of."""

import sys
from pathlib import Path


def model_files(path: str | Path) -> list[Path]:
    """`path`, and the files beside it that an ONNX model keeps its weights in; `path` alone where that cannot be read."""
    path = Path(path)
    if path.suffix != ".onnx" or not path.is_file():
        return [path]
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        graph = onnx.load(path, load_external_data=False).graph
        places = {ExternalDataInfo(tensor).location for tensor in graph.initializer if uses_external_data(tensor)}
        return [path, *(path.parent / place for place in places)]
    except Exception:  # whatever is wrong with the file, its import says it
        return [path]


def arch_files(arch: str | None) -> list[Path]:
    """The Python files that `package.module:function` may be in, without importing anything; none for other names."""
    module = (arch or "").rpartition(":")[0]
    stem = Path(*module.split(".")) if module else None
    if stem is None or stem.is_absolute():
        return []
    places = [Path(folder) / form for folder in (".", *sys.path) for form in (stem.with_suffix(".py"), stem / "__init__.py")]
    return [place for place in places if place.is_file()]
