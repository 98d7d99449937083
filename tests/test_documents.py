"""What the pages and the help say is there: commands with their options, files, and names for
Python."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from subpc.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
)
# In a page and in a help, what is to be typed is indented; it may follow a prompt, or `-m` of a
# Python.
_INDENTED = re.compile(r"^ {2,}(?:\$ )?(.*\bsubpc(?:\.cli)? .*)$", re.MULTILINE)
_INLINE = re.compile(r"`subpc ([^`]*)`")
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
_FILE = re.compile(r"\b(?:[\w-]+/)*[\w-]+\.(?:py|md|c|html\.j2)\b")
_ANYBODYS = {"model.py", "no.py"}


def commands(text: str) -> list[list[str]]:
    """The arguments of every `subpc` command that `text` shows in a line of its own, placeholders
    included."""
    found = []
    for line in _INDENTED.findall(text.replace("\\\n", " ")):
        for part in re.split(r"&&|;", re.split(r" +#| > ", line)[0]):
            words = shlex.split(part)
            if words and words[0].rpartition("/")[2] == "subpc":
                found.append(words[1:])
            elif "subpc.cli" in words:
                found.append(words[words.index("subpc.cli") + 1 :])
    return found


def documented() -> dict[str, list[str]]:
    """Every command, under the page or help that it stands in."""
    texts = {page: (ROOT / page).read_text() for page in PAGES}
    texts |= {
        f"subpc {' '.join(path)} --help": command.help or ""
        for path, command in every_command(cli, ())
    }
    return {
        f"{place}: {' '.join(words)}": words
        for place, text in texts.items()
        for words in commands(text)
    }


def every_command(
    group: click.Group, path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], click.Command]]:
    """All commands and groups below `group`."""
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += every_command(command, (*path, name))
    return found


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line names, and what follows it; a group where what follows is no name of
    one: `subpc compress METHOD`."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            assert words[0].isupper() or words[0].startswith("-"), words
            break
        command, words = found, words[1:]
    return command, words


def parse(words: list[str]) -> click.Context:
    """The command line as click understands it; nothing is run."""
    command, rest = command_of(words)
    return command.make_context(command.name, list(rest))


DOCUMENTED = documented()


@pytest.mark.parametrize("line", DOCUMENTED)
def test_documented_commands_are_accepted(line: str) -> None:
    parse(DOCUMENTED[line])


@pytest.mark.parametrize("page", PAGES)
def test_options_in_running_text_exist(page: str) -> None:
    for text in _INLINE.findall((ROOT / page).read_text()):
        command, words = command_of(shlex.split(text))
        options = {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word.partition("=")[0] for word in words if word.startswith("-")} - {
            "--help"
        } <= options, text


def test_commands_are_found() -> None:
    assert len(DOCUMENTED) > 60
    assert {words[0] for words in DOCUMENTED.values()} >= {
        name for (name, *_), _ in every_command(cli, ())
    } - {"demo", "doctor"}


def test_an_option_that_does_not_exist_is_seen() -> None:
    (words,) = commands("    subpc compile model.pt --shpae 1,3,8,8 -o model.so  # text\n")
    with pytest.raises(click.UsageError, match="--shpae"):
        parse(words)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_name_are_there(page: str) -> None:
    known = {path.name for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts}
    text = (ROOT / page).read_text()
    for name in set(_FILE.findall(text)) - _ANYBODYS:
        assert (ROOT / name).exists() or ("/" not in name and name in known), name


@pytest.mark.parametrize("page", PAGES)
def test_python_in_pages_names_what_is_there(page: str) -> None:
    for source in _PYTHON.findall((ROOT / page).read_text()):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("subpc"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "subpc"
            ):
                # A name of the package, or a module of it that is imported beside.
                assert hasattr(importlib.import_module("subpc"), node.attr), ast.unparse(node)


def misplaced(text: str) -> list[str]:
    """What a page says is in a Python file, but is not defined there: "`name` in path.py"."""
    said = re.findall(r"`(\w+)`\s+(?:in|of|)\s*\(?`?([\w/]+/\w+\.py)\b", text)
    return [
        f"{name} in {path}"
        for name, path in said
        if not re.search(
            rf"^\s*(?:def |class )?{name}\b\s*[:=(]", (ROOT / path).read_text(), re.MULTILINE
        )
    ]


@pytest.mark.parametrize("page", PAGES)
def test_names_in_pages_are_defined_in_the_files_that_they_name(page: str) -> None:
    assert misplaced((ROOT / page).read_text()) == []


def test_a_name_that_moved_is_seen() -> None:
    text = "`LOWERING_RULES` of passes/pipeline.py, `place_conv` (passes/place_conv.py)"
    assert misplaced(text) == ["LOWERING_RULES in passes/pipeline.py"]
