"""`subpc demo`: what subpc does, in two minutes."""

from pathlib import Path

import click

from subpc.cli.options import DATA, FileCommand, threads_option
from subpc.scratch import scratch_folder


@click.command("demo", cls=FileCommand)
@click.option("--image", type=DATA, help="An image of your own. [default: a cat]")
@threads_option
def command(image: Path | None, threads: int | None) -> None:
    """Compile a pretrained MobileNetV2 and show it an image; compare a sparse network with the
    dense one on 1,000 images; then time a ResNet-50, sparse and dense, beside other engines.

    \b
    Example:
      subpc demo
    """
    from subpc.cli.bench import print_report
    from subpc.cli.printing import show as tell
    from subpc.cli.progress import progress_line
    from subpc.demo.show import show

    with scratch_folder("demo") as folder, progress_line() as progress:
        report = show(Path(folder), image, threads, progress, tell)
    print_report(report)
