"""`subpc compress`: the group of compression methods, those of the registry and the training by
SUBP."""

import os

import click

from subpc.algorithms.registry import METHODS

_SUBP = "Train a 1xN block-sparse network, from scratch or from weights."


class _Methods(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["subp", *METHODS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "subp":
            from subpc.cli.compress_subp import command as train

            return train
        if cmd_name not in METHODS:
            return None
        from subpc.cli.compress_method import command_of

        return command_of(METHODS[cmd_name])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Methods"):
            formatter.write_dl(
                [("subp", _SUBP), *((name, method.title) for name, method in METHODS.items())]
            )


@click.group("compress", cls=_Methods)
def command() -> None:
    """Make a trained network smaller; `subpc compile` takes the result with no further word.

    \b
    Example:
      subpc compress udfc weights.pth --arch torchvision:resnet18 --ratio 0.3 --bits 6 -o small.pt
    """
    # PyTorch is loaded after this. Compression is thousands of small sums; threads that wait for
    # each other awake would take most of the CPU's time wherever anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
