"""One capture or compilation at a time in a process: torch.export and TVM's importers keep state
that all threads share."""

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


def _renew() -> None:
    """In a forked child nobody holds the lock: the thread that may have held it is not there."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other thread captures or compiles; `with one_at_a_time():`, or a decorator. A
    thread may hold it several times."""
    with _lock:
        yield


@contextmanager
def capturing() -> Iterator[None]:
    """The same, for what captures with PyTorch: torch.compile in another thread would disturb
    torch.export, and waits too."""
    # torch.export imports this module in any case.
    with one_at_a_time(), importlib.import_module("torch._dynamo.convert_frame").compile_lock:
        yield
