"""A team of processes: two with gloo on one machine end with the masks and weights of one process
that gets the joint batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

TRAINING = """
import sys
from pathlib import Path
import torch
from torch import nn
from subpc.algorithms.subp.config import SubpConfig
from subpc.algorithms.subp.images import InMemory
from subpc.algorithms.subp.train_config import TrainConfig
from subpc.algorithms.subp.trainer import train
from subpc.training.process_group import process_group

torch.set_num_threads(1)
torch.manual_seed(0)
# No batch norm: its statistics would be those of a process's share.
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 1, 1), nn.GroupNorm(4, 16),
    nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1),
    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
)
labels = torch.arange(96) % 2
noise = torch.randint(0, 100, (96, 1, 8, 8), generator=torch.Generator().manual_seed(0))
images = (noise + 120 * labels[:, None, None, None]).to(torch.uint8)
data = InMemory(images, labels, mean=0.4, std=0.3, crop=1)
masks = SubpConfig(n=4, sparsity=0.5, start=0, end=3, soft_decay=0.05, temperature=0.1)
config = TrainConfig(subp=masks, epochs=5, batch=16, rate=0.05)
with process_group("cpu") as (team, device):
    history = train(model, data, data, config, device=device)
    last = history.epochs[-1]
    numbers = {"loss": torch.tensor(last.loss), "top1": torch.tensor(last.top1)}
    result = model.state_dict() | numbers
    torch.save(result, Path(sys.argv[1]) / f"{team.rank}-of-{team.size}.pt")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_team(size: int, folder: Path) -> list[dict[str, torch.Tensor]]:
    """What every process of a team of `size` ends with."""
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1",
    }
    team = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(size)
    ]
    assert [process.wait(240) for process in team] == [0] * size
    return [torch.load(folder / f"{rank}-of-{size}.pt", weights_only=True) for rank in range(size)]


def test_two_processes_train_what_one_would(tmp_path: Path) -> None:
    (alone,) = run_team(1, tmp_path)
    first, second = run_team(2, tmp_path)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5, msg=name)
        if name in ("2.weight", "5.weight"):
            assert torch.equal(first[name] == 0, value == 0), name
            assert float((value == 0).float().mean()) == 0.5
