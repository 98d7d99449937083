"""What an interrupted distillation goes on from."""

import hashlib
import time
from pathlib import Path

import torch
from torch import nn

from subpc.algorithms.distill.config import DistillConfig
from subpc.algorithms.file_format.checkpoint_file import read_checkpoint
from subpc.algorithms.file_format.compressed_file import save_atomic
from subpc.errors import ModelFileError
from subpc.text import first_line

_KEYS = {"distillation", "settings", "done", "steps", "model", "optimizer"}
_SECONDS, _MAX_BYTES = 60.0, 8 << 30
# Steps between two states in memory, one of which is gone back to when the loss is no number.
_GOOD = 50


class Checkpoint:
    """The state of a learning network and its optimizer: in memory, and at `path`, if any."""

    def __init__(
        self,
        path: Path | None,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: DistillConfig,
    ) -> None:
        self._path, self._model, self._optimizer = path, model, optimizer
        # The same settings and the same network at the start, or it is another distillation.
        self._settings = {**config.to_dict(), "network": _digest(model)}
        self._written = time.monotonic()
        self._good = (0, _copied(model))

    def load(self) -> tuple[int, int]:
        """(steps done, steps in all) of the file, whose state is taken; (0, 0) without one.

        ModelFileError for a file that is none, or of another distillation.
        """
        if self._path is None or not self._path.exists():
            return 0, 0
        content = read_checkpoint(
            self._path,
            _KEYS,
            most=_MAX_BYTES,
            other="is not a checkpoint of a distillation. Remove it, or pass another output.",
        )
        if content["settings"] != self._settings:
            raise ModelFileError(
                f"{self._path.name} is there from a distillation of another network or with other"
                " settings. Remove it, or pass the same settings to go on with it."
            )
        try:
            self._model.load_state_dict(content["model"])
            self._optimizer.load_state_dict(content["optimizer"])
            done, steps = int(content["done"]), int(content["steps"])
        except Exception as error:
            raise ModelFileError(
                f"{self._path.name} does not fit this network: {first_line(error, 120)}"
            ) from error
        self._good = (done, _copied(self._model))
        return done, steps

    def keep(self, done: int, steps: int) -> None:
        """Remember the state after so many steps; on disk, whole or not at all, once a minute."""
        if done % _GOOD == 0:
            self._good = (done, _copied(self._model))
        if self._path is None or time.monotonic() - self._written < _SECONDS:
            return
        content = {
            "distillation": 1,
            "settings": self._settings,
            "done": done,
            "steps": steps,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        save_atomic(self._path, content)
        self._written = time.monotonic()

    def restore(self) -> int:
        """Go back to the last state in memory; returns how many steps it has."""
        done, state = self._good
        self._model.load_state_dict(state)
        return done

    def remove(self) -> None:
        """The file is needed no more."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for key, value in model.state_dict().items():
        found.update(key.encode())
        found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()
