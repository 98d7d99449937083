"""Files that an interrupted training goes on from, read without trusting them."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import torch

from subpc.errors import ModelFileError
from subpc.text import first_line


def read_checkpoint(path: Path, keys: Set[str], *, most: int, other: str) -> dict[str, Any]:
    """The entries `keys`, all there are, of a file of at most `most` bytes; nothing in it is run.

    other: what is wrong, and what to do, with a file of other entries. Raises ModelFileError.
    """
    try:
        if path.stat().st_size > most:
            raise ModelFileError(
                f"{path.name} has more than {most >> 30} GiB; it is not a checkpoint."
            )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ModelFileError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{path.name} is not a checkpoint, or is damaged: {first_line(error, 120)}"
        ) from error
    if not isinstance(content, dict) or set(content) != keys:
        raise ModelFileError(f"{path.name} {other}")
    return content
