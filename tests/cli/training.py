"""A training that takes seconds, and what it leaves."""

from pathlib import Path

import torch
from click.testing import CliRunner, Result

from subpc.cli.main import cli
from tests.algorithms.file_format.reader import load_compressed

ARCH = ["--arch", "subpc:resnet20", "--arch-option", "stem_stride=4"]
SETTINGS = [*ARCH, *["--epochs", "3", "--start", "0", "--end", "1"]]
FAST = [*SETTINGS, *["--batch", "32", "--rate", "0.05", "--threads", "1", "--device", "cpu"]]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["compress", "subp", *arguments], catch_exceptions=True)


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    return load_compressed(path).state_dict
