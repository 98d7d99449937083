"""What a training can go on from: weights, masks, optimizer and history of whole epochs."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from subpc.algorithms.file_format.checkpoint_file import read_checkpoint
from subpc.algorithms.file_format.compressed_file import save_atomic
from subpc.algorithms.subp.train_config import EpochInfo, TrainConfig
from subpc.errors import ModelFileError
from subpc.text import first_line

_MAX_BYTES = 4 << 30
_KEYS = {"subp_checkpoint", "config", "epochs", "model", "optimizer"}


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    epochs: tuple[EpochInfo, ...],
) -> None:
    """Write the state after the last of `epochs`, whole or not at all; ModelFileError where the
    disk refuses."""
    content = {
        "subp_checkpoint": 1,
        "config": config.to_dict(),
        "epochs": [info.to_dict() for info in epochs],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    save_atomic(path, content)


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig
) -> tuple[EpochInfo, ...]:
    """Put the state in `path` into model and optimizer, and return the epochs done; ModelFileError
    for a file that does not fit."""
    content = _read(path)
    if content["config"] != config.to_dict():
        wanted, found = config.to_dict(), content["config"]
        other = sorted(
            key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]
        )
        raise ModelFileError(
            f"{path.name} is a checkpoint of another config: {other} differ.\nPass the same"
            " settings, or another path."
        )
    try:
        epochs = tuple(EpochInfo.from_dict(entry) for entry in content["epochs"])
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except Exception as error:
        raise ModelFileError(
            f"{path.name} does not fit this model: {first_line(error, 120)}"
        ) from error
    return epochs


def _read(path: Path) -> dict[str, Any]:
    other = "is not a checkpoint of this version of subpc. Pass another path, or remove the file."
    content = read_checkpoint(path, _KEYS, most=_MAX_BYTES, other=other)
    if content["subp_checkpoint"] != 1:
        raise ModelFileError(f"{path.name} {other}")
    return content
