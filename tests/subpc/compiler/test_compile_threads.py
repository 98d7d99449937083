"""Several threads that compile at once, and processes that are forked meanwhile."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import subpc
from subpc.algorithms.dfmpc.config import DfmpcConfig
from subpc.compiler.torch_compile import backend
from subpc.frontend.one_at_a_time import one_at_a_time

X = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def net(width: int) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.Flatten()
    ).eval()


def library(model: nn.Module) -> Any:
    return subpc.compile(model, X)(X)


@torch.no_grad()
def captured(model: nn.Module) -> Any:
    return torch.compile(model, backend=backend)(X)


def compressed(model: nn.Module) -> Any:
    smaller, _ = subpc.compress(
        model, DfmpcConfig(low_bits=8, high_bits=8), input_shape=tuple(X.shape)
    )
    return subpc.compile(smaller, X)(X)


@pytest.mark.parametrize(
    "ways", [[library] * 4, [library, captured, captured, compressed]], ids=["compile", "every way"]
)
def test_four_threads_compile(ways: list[Callable[[nn.Module], Any]]) -> None:
    models, results = [net(8 * i) for i in range(1, 5)], dict[int, Any]()
    start = threading.Barrier(4)

    def work(index: int) -> None:
        start.wait()
        results[index] = ways[index](models[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, model in enumerate(models):
        tolerance = 1e-4 if ways[index] is not compressed else 0.02
        torch.testing.assert_close(
            results[index], model(X).detach(), rtol=tolerance, atol=tolerance
        )


def test_a_child_that_is_forked_while_another_thread_compiles() -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with one_at_a_time():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # a child that waits for ever ends with a signal
        with one_at_a_time():
            os._exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert status == 0
