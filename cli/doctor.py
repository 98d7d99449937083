"""`subpc doctor`: what works here and what does not."""

import click

from subpc.cli.options import json_option
from subpc.cli.tables import show_json


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Check this machine and the installation: versions, CPU, threads, linker. Exit code 1 if something is wrong.

    \b
    Example:
      subpc doctor
    """
    from subpc.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        show_json(diagnosis.to_dict())
    else:
        for check in diagnosis.checks:
            click.echo(f"{check.state:8} {check.name:12} {check.text}")
        click.echo(diagnosis.conclusion)
    if not diagnosis.healthy:
        click.get_current_context().exit(1)
