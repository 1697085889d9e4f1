"""The help of every command as a page of the documentation: `python -m tests.builders.command_help`
writes docs/commands.md, and tests/commands/test_help.py checks that it is current.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

from isotone.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
WIDTH = 80
COMMANDS = (
    "",
    "compress",
    "inspect",
    "verify",
    "decompress",
    "calibrate",
    "eval",
    "generate",
    "heal",
    "frontier",
    "report",
    "study",
    "study run",
    "study list",
)
START = """\
# Commands

Every command takes `--json`, with which it prints exactly one JSON object on stdout and nothing
else there; progress and notes go to stderr. Exit codes: 0 the command did what was asked; 1 a
check failed (`verify`), or healing brought no gain (`heal`); 2 bad input or usage, with one line on
stderr that says what, where and what to do; 3 an error that isotone did not expect; 130
interrupted.

This page is written by `python -m tests.builders.command_help`.
"""


@cache
def help_of(command):
    """What `isotone COMMAND --help` prints, whatever the terminal of the caller."""
    printed = StringIO()
    with redirect_stdout(printed):
        app(
            [*command.split(), "--help"],
            prog_name="isotone",
            standalone_mode=False,
            terminal_width=WIDTH,
        )
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def page():
    """The whole page."""
    parts = [START]
    for command in COMMANDS:
        name = f"isotone {command}".strip()
        parts.append(f"## {name}\n\n```text\n{help_of(command)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
