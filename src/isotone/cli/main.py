"""The command line: parse, call one function, print."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from isotone.cli import archive, calibrate, explore, judge, pages, study, train
from isotone.errors import IsotoneError

app = typer.Typer(
    name="isotone",
    help="Compress language models by clustering their weights.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in archive.COMMANDS:
    app.command()(command)
app.command("calibrate")(calibrate.calibrate)
NAMED = judge.COMMANDS | train.COMMANDS | explore.COMMANDS | pages.COMMANDS
for name, measuring in NAMED.items():
    app.command(name)(measuring)
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
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Compress language models by clustering their weights."""


def main() -> None:
    """Run the command line: exit 0 done, 1 a check failed, 2 bad input, with one line on stderr."""
    debug = "--debug" in sys.argv[1:]
    # Typer takes --debug before the command only; people put it at the end.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except IsotoneError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except typer.Abort:
        _fail("stopped", 130)
    except KeyboardInterrupt:
        _fail(
            "interrupted; run the same again: what was begun goes on where it stopped",
            130,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # a click usage error, whose class typer may vendor
            _fail(f"{error.format_message()} (see isotone --help)", 2)
        _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 3)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    sys.stderr.write("isotone: " + " ".join(message.split()) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
