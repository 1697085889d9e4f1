"""The command line: its commands in the order of `isotone --help`, and its exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Never

import typer

from isotone.cli.commands import (
    calibrate,
    compress,
    decompress,
    evaluate,
    frontier,
    generate,
    heal,
    inspect,
    report,
    study,
    verify,
)
from isotone.cli.console import escape_what_cannot_be_shown
from isotone.errors import IsotoneError

COMMANDS: dict[str, Callable[..., None]] = {
    "compress": compress.compress,
    "inspect": inspect.inspect,
    "verify": verify.verify,
    "decompress": decompress.decompress,
    "calibrate": calibrate.calibrate,
    "eval": evaluate.evaluate,
    "generate": generate.generate,
    "heal": heal.heal,
    "frontier": frontier.frontier,
    "report": report.report,
}

_INTERRUPTED = 130  # what typer returns for KeyboardInterrupt

# The commands that keep what they have done when they are interrupted.
_RESUMED = frozenset({"compress", "decompress", "calibrate", "heal", "frontier", "study"})

app = typer.Typer(
    name="isotone",
    help="Compress language models by clustering their weights.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(study.app, name="study")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        typer.echo(installed("isotone"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version of isotone and exit.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Compress language models by clustering their weights."""


def main() -> None:
    """Run the command line on `sys.argv`, and exit with its code.

    Exit codes: 0 done; 1 a check failed; 2 bad input or usage, with one line on stderr; 3 an error
    that isotone did not expect; 130 interrupted; 141 the reader of stdout went away.
    """
    debug = "--debug" in sys.argv[1:]
    # Typer accepts --debug only before the command, and people write it at the end.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    escape_what_cannot_be_shown()
    try:
        code = _run(arguments)
    except IsotoneError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail(_what_interrupted(arguments), 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # a usage error of click, whose class typer may vendor
            _fail(f"{error.format_message()} (see isotone --help)", 2)
        _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 3)
    sys.exit(code if isinstance(code, int) else 0)


def _run(arguments: Sequence[str]) -> object:
    """Run a command; raises KeyboardInterrupt and BrokenPipeError, which typer handles silently."""
    try:
        code: object = app(arguments, prog_name="isotone", standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    return code


def _what_interrupted(arguments: Sequence[str]) -> str:
    if any(argument in _RESUMED for argument in arguments[:1]):
        return "interrupted; run the same command again, and it goes on where it stopped"
    return "interrupted; nothing was written"


def _fail(message: str, code: int) -> Never:
    """Print a message as one line on stderr, and exit."""
    sys.stderr.write("isotone: " + " ".join(message.split()) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
