"""What is to be trained, and where the files go that come of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, beside the settings of training.

    arch: as in subpc.compile, with its options; data: `fashion-mnist[:FOLDER]` or
    `imagefolder:FOLDER`; output: the compressed model file; init: weights to start from; resume: go
    on from the checkpoint beside `output`; size: of images from folders; workers: processes that
    read them; device: "auto", "cpu", "cuda" or "cuda:1"; half: round weights to float16 at the end
    and store them so;
    teacher: a model file of a trained network to learn from, of `teacher_arch` where it has weights
    alone, `arch` by default;
    onnx, state_dict: where to write the network as ONNX, and for plain PyTorch, too.
    """

    arch: str
    data: str
    output: Path
    arch_options: dict[str, Any]
    init: Path | None = None
    teacher: Path | None = None
    teacher_arch: str | None = None
    resume: bool = False
    size: int = 224
    workers: int = 2
    device: str = "auto"
    half: bool = False
    onnx: Path | None = None
    state_dict: Path | None = None

    @property
    def checkpoint(self) -> Path:
        """There while a training is unfinished."""
        return self.output.with_name(self.output.name + ".checkpoint")
