"""Loads mutated files of one kind one after the other, and prints what came of each; a process of
its own, with limits.

python -m tests.fuzz.worker KIND FOLDER SEED FIRST NAME...
"""

import os
import resource
import sys
import warnings
from pathlib import Path
from random import Random
from typing import Any

from subpc.errors import SubpcError
from tests.fuzz.bad_values import CANARY
from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import LOADERS

MEMORY = 8 << 30
# What no loader has a reason to do while it reads a file.
_EVENTS = (
    "os.system",
    "subprocess.",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "socket.",
    "shutil.",
)
_watched: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "os.mkdir" and "torchinductor_" in str(arguments[0]):
        return  # PyTorch's cache, which an import makes
    if event.startswith(_EVENTS) or (event == "import" and CANARY in str(arguments[0])):
        _watched.append(f"{event} {str(arguments)[:80]}")
    elif event == "open":
        path, mode, flags = (*arguments, None, None, None)[:3]
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and not isinstance(path, int) and str(path) not in ("/dev/null",):
            _watched.append(f"open {str(path)[:80]} to write")


def finding_name(number: int, suffix: str) -> str:
    """The name that a case keeps that was neither refused nor accepted."""
    return f"finding-{number}{suffix}"


def main(kind: str, folder: Path, seed: str, first: int, names: list[str]) -> None:
    global _watching
    warnings.simplefilter("ignore")
    seeds = [(folder / name).read_bytes() for name in names]
    for name in names:
        LOADERS[kind](
            folder / name
        )  # an honest file is accepted, and whatever is imported late is imported now
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    here = folder / f"work {kind}".replace("/", "")
    here.mkdir(exist_ok=True)
    os.chdir(here)
    sys.addaudithook(_audit)
    print("ready", flush=True)
    number = first
    while True:
        random = Random(f"{seed} {kind} {number}")
        index = random.randrange(len(names))
        path = here / f"case{Path(names[index]).suffix}"
        path.write_bytes(mutated(seeds[index], kind, random))
        _watched.clear()
        _watching = True
        try:
            LOADERS[kind](path)
            outcome = "accepted"
        except SubpcError as error:
            text = str(error)
            short = (
                len(text) < 2000 and len(text.splitlines()) <= 3 and "internal error" not in text
            )
            outcome = "refused" if short else f"leaked a long message: {text[:300]!a}"
        except BaseException as error:
            outcome = f"leaked {type(error).__name__}: {str(error)[:200]!a}"
        finally:
            _watching = False
        if _watched or (here / CANARY).exists():
            outcome = f"ran {_watched[:3] or 'something'}"
        if outcome not in ("refused", "accepted"):
            # Out of the way of the next case, which is written before anybody reads of this one.
            path.rename(here / finding_name(number, path.suffix))
        print(f"{number} {outcome}", flush=True)
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:])
