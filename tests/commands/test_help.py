"""docs/commands.md holds the help of every command as it is."""

from __future__ import annotations

import pytest
import typer

from isotone.cli.main import app
from tests.builders.command_help import COMMANDS, PAGE, WIDTH, help_of, page


def names(group, before=""):
    """Every command below a group, the groups included, in the order of their help."""
    yield before.strip()
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from names(command, f"{before} {name}")
        else:
            yield f"{before} {name}".strip()


def test_the_page_names_every_command():
    assert tuple(names(typer.main.get_command(app))) == COMMANDS


def test_the_page_is_current():
    assert PAGE.read_text("utf-8") == page(), "run python -m tests.builders.command_help"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_wide_terminal(command):
    lines = help_of(command).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert not any("\x1b" in line for line in lines)
    assert not any(line.endswith("...") for line in lines[4:]), "a sentence is cut off"
