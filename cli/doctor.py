"""`subpc doctor`: what works here and what does not."""

import click

from subpc.cli.options import FileCommand, json_option
from subpc.cli.printing import flat, show, show_json


@click.command("doctor", cls=FileCommand)
@json_option
def command(as_json: bool) -> None:
    """Check this machine and the installation: versions, CPU, threads, linker. Exit code 1 if
    something is wrong.

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
            show(f"{check.state:8} {check.name:12} {flat(check.text)}")
        show(diagnosis.conclusion)
    if not diagnosis.healthy:
        click.get_current_context().exit(1)
