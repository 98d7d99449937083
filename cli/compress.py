"""`subpc compress`: the group of compression methods; each method's module is imported when it is chosen."""

import importlib

import click

METHODS = {
    "subp": ("subpc.cli.compress_subp", "Train a 1xN block-sparse network, from scratch or from weights."),
    "udfc": ("subpc.cli.compress_udfc", "Remove channels and quantize weights, without data."),
    "dfmpc": ("subpc.cli.compress_dfmpc", "Quantize to mixed precision, without data."),
    "blocks": ("subpc.cli.compress_blocks", "Prune 1xN blocks, without data."),
}


class _Methods(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(METHODS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in METHODS:
            return None
        method: click.Command = importlib.import_module(METHODS[cmd_name][0]).command
        return method

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Methods"):
            formatter.write_dl([(name, line) for name, (_, line) in METHODS.items()])


@click.group("compress", cls=_Methods)
def command() -> None:
    """Make a trained network smaller; `subpc compile` takes the result with no further word.

    \b
    Example:
      subpc compress udfc weights.pth --arch torchvision:resnet18 --ratio 0.3 --bits 6 -o small.pt
    """
