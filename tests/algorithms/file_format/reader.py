"""What stands in a compressed file, for tests that look into one."""

from pathlib import Path

import torch

from subpc.algorithms.file_format.compressed_file import CompressedFile, parse_compressed
from subpc.algorithms.file_format.safetensors_file import from_file


def load_compressed(path: Path) -> CompressedFile:
    """The content of `path`, .safetensors or .pt."""
    named = path.suffix == ".safetensors"
    content = from_file(path) if named else torch.load(path, map_location="cpu", weights_only=True)
    return parse_compressed(content, path.name)
