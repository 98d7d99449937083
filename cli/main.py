"""The `subpc` command. A subcommand's module is imported when it is chosen, so that help is quick
and `run` stays light."""

import importlib
import io
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from subpc import __version__
from subpc.cli.printing import OutputError, complain, flat
from subpc.errors import ConfigError, SubpcError, not_installed
from subpc.text import printable

# name -> (module, one line for the overview, which is shown without importing the module)
COMMANDS = {
    "compress": ("subpc.cli.compress", "Make a trained network smaller (udfc: without data)."),
    "compile": ("subpc.cli.compile", "Compile a model file into one native library."),
    "tune": ("subpc.cli.tune", "Search faster schedules for a model on this CPU."),
    "run": ("subpc.cli.run", "Run a compiled library on arrays or an image."),
    "bench": ("subpc.cli.bench", "Time a library beside ONNX Runtime, OpenVINO and PyTorch."),
    "profile": ("subpc.cli.profile", "Show the time of every layer."),
    "compare": (
        "subpc.cli.compare",
        "Compare two models: agreement, error layer by layer, speed, size.",
    ),
    "inspect": (
        "subpc.cli.inspect",
        "Show what a library contains, and what was decided for each layer.",
    ),
    "doctor": ("subpc.cli.doctor", "Check this machine and the installation."),
    "demo": ("subpc.cli.demo", "Recognise an image, then time a ResNet-50 beside other engines."),
}
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="subpc")
def cli() -> None:
    """Compile convolutional networks into fast block-sparse libraries for the CPU.

    Exit codes: 0 done, 1 failed, 2 something in the command has to be changed. Set SUBPC_DEBUG=1 to
    see Python tracebacks.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors become one or two lines on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # else whoever started this wants it ignored
        signal.signal(signal.SIGINT, _interrupt)
    _open_standard_files()
    sys.exit(run(arguments))


# Signals that came: an exception may be about the half of an import that one of them has left.
_signals: list[int] = []


def _terminate(number: int, frame: object) -> None:
    # An exception, so that temporary files are removed on the way out.
    _signals.append(number)
    raise SystemExit(128 + number)


def _interrupt(number: int, frame: object) -> None:
    _signals.append(number)
    raise KeyboardInterrupt


def _open_standard_files() -> None:
    """Give closed ones another end, or the first file that is opened would be taken for one of
    them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # letters that the terminal's encoding lacks are no reason to fail
            stream.reconfigure(errors="backslashreplace")


def run(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    if os.environ.get("SUBPC_DEBUG") == "1":
        return _result(cli.main(arguments, prog_name="subpc", standalone_mode=False))
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _run(sys.argv[1:] if arguments is None else arguments)


def _run(arguments: list[str]) -> int:
    def fail(text: str, code: int) -> int:
        if _signals:
            return _stopped()
        complain(f"error: {_with_names_in_line(text, arguments)}")
        return code

    try:
        os.getcwd()
    except FileNotFoundError:  # some libraries end the process over it
        return fail(
            "the folder that this runs in does not exist any more; change to another one",
            WRONG_USAGE,
        )
    try:
        return _result(cli.main(arguments, prog_name="subpc", standalone_mode=False))
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "subpc"
        return fail(f"{error.format_message()}\nSee: {command} --help", WRONG_USAGE)
    except click.ClickException as error:
        return fail(error.format_message(), FAILED)
    except SubpcError as error:
        return fail(str(error), WRONG_USAGE if isinstance(error, ConfigError) else FAILED)
    except (click.Abort, KeyboardInterrupt):  # click has already ended the line that ^C stands in
        complain("interrupted")
        return INTERRUPTED
    except (OutputError, BrokenPipeError) as error:
        # A second message at exit is avoided by giving stdout another end.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # The reader (head, less) has seen enough.
        unread = isinstance(error, BrokenPipeError) or error.unread
        return FAILED if unread else fail(f"cannot write to standard output: {error}", FAILED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("subpc"):
            return _defect(error)
        return fail(not_installed(error), FAILED)
    except OSError as error:
        place = (
            f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        )
        return fail(f"{error.strerror or error}{place}", FAILED)
    except (
        UnicodeEncodeError
    ) as error:  # lone surrogates: Python's way to keep bytes of names that are no text
        return fail(
            f"the name {error.object} is not valid UTF-8, and a part of subpc that needs it takes"
            " no other; rename it",
            FAILED,
        )
    except MemoryError:
        return fail(
            "there is not enough memory for this; use a smaller model or input, or a machine with"
            " more",
            FAILED,
        )
    except Exception as error:
        return _defect(error)


def _with_names_in_line(text: str, arguments: list[str]) -> str:
    """Line breaks in the names that the user gave as escapes: an error has its lines from us
    alone."""
    for name in sorted(
        {part for a in arguments if "\n" in a for part in (a, Path(a).name, Path(a).stem)},
        key=len,
        reverse=True,
    ):
        text = text.replace(name, printable(name))
    return text


def _warn(
    message: "Warning | str",
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    # Other libraries warn each other's authors; a user of this command can do nothing about it.
    if category.__module__.partition(".")[0] == __name__.partition(".")[0]:
        complain(f"warning: {message}")


def _stopped() -> int:
    """What an error after a signal comes to."""
    if signal.SIGTERM in _signals:
        return 128 + signal.SIGTERM
    complain("interrupted")
    return INTERRUPTED


def _defect(error: Exception) -> int:
    if _signals:
        return _stopped()
    complain(
        f"error: internal error ({type(error).__name__}: {flat(str(error))[:500]})\n"
        "This is a defect of subpc; please report it with the traceback that SUBPC_DEBUG=1 shows."
    )
    return FAILED


def _result(value: Any) -> int:
    return value if isinstance(value, int) else 0
