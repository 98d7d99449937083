"""Time and memory of the data-free methods, as in docs/data_free.md: each case alone in a process
of its own, random weights, 224x224.

    python benchmarks/data_free_cost.py                                # all rows
    python benchmarks/data_free_cost.py --net resnet50 --method dfmpc  # one

Memory is the peak beyond the loaded network: what the process holds of its own (anonymous pages),
and with the pages of libraries (code) that it touches on the way. Both are read every few
milliseconds from outside, so that the process itself is left alone.
"""

import hashlib
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import click

NETS = ("resnet50", "densenet121", "mobilenet_v2")
METHODS = ("dfmpc", "udfc")
SHAPE = (1, 3, 224, 224)
# Seconds between two looks at the memory; the kernel counts pages up to 64 a thread late.
_PAUSE = 0.005


def compress(net: str, method: str, threads: int, pipe: Connection) -> None:
    """Load a network, say so, compress it, and send the seconds and what tells two results
    apart."""
    import torch

    from subpc.algorithms.dfmpc.compress import DfmpcConfig, compress_dfmpc
    from subpc.algorithms.udfc.compress import UdfcConfig, compress_udfc
    from subpc.demo.random_networks import seeded_model

    torch.set_num_threads(threads)
    model = seeded_model(net)
    pipe.send(sum(p.nbytes for p in model.parameters()))
    pipe.recv()
    start = time.perf_counter()
    if method == "dfmpc":
        result, *_ = compress_dfmpc(model, DfmpcConfig(), input_shape=SHAPE)
    else:
        result, *_ = compress_udfc(model, UdfcConfig(), input_shape=SHAPE)
    seconds = time.perf_counter() - start
    digest = hashlib.sha256()
    for tensor in result.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    pipe.send((seconds, digest.hexdigest()[:8]))


def resident(process: int) -> tuple[int, int]:
    """Bytes of anonymous pages, and of all pages, of a process."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    own, total = (int(fields[name].split()[0]) << 10 for name in ("RssAnon", "VmRSS"))
    return own, total


def measure(net: str, method: str, threads: int) -> str:
    """A row: network, method, seconds, MB of weights, MB of its own, MB in all, digest."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=compress, args=(net, method, threads, there))
    worker.start()
    there.close()
    weights = here.recv()
    assert worker.pid is not None
    before = peak = resident(worker.pid)
    here.send(None)
    while not here.poll(_PAUSE):
        peak = (max(peak[0], (now := resident(worker.pid))[0]), max(peak[1], now[1]))
    seconds, digest = here.recv()
    worker.join()
    own, total = ((most - least) / 1e6 for most, least in zip(peak, before, strict=True))
    return (
        f"| {net} | {method} | {seconds:.1f} | {weights / 1e6:.0f} | {own:.0f} | {total:.0f} |"
        f" {digest} |"
    )


@click.command()
@click.option("--net", "nets", multiple=True, default=NETS, show_default=True)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(METHODS),
    default=METHODS,
    show_default=True,
)
@click.option("--threads", default=2, show_default=True)
def main(nets: tuple[str, ...], methods: tuple[str, ...], threads: int) -> None:
    """Print the table."""
    click.echo(
        "| network | method | s | weights MB | own MB | with libraries MB | result"
        " |\n|---|---|---|---|---|---|---|"
    )
    for net in nets:
        for method in methods:
            click.echo(measure(net, method, threads))


if __name__ == "__main__":
    main()
