"""`isotone verify`: check everything that a compressed directory holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from isotone.cli.console import print_json, say
from isotone.cli.engines import at_work
from isotone.cli.options import Address, Cores, Directory, EngineName, Json, Workers
from isotone.pipeline.verify import Verification
from isotone.pipeline.verify import verify as run_verify

Against = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The dense model that DIR was made from: check that nothing else was changed.",
    ),
]


def verify(
    directory: Directory,
    against: Against = None,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    json: Json = False,
) -> None:
    """Decode everything in DIR and check every hash.

    Exit 1 if a check fails.
    """
    with at_work(engine, address, cores, workers) as (progress, opened):
        result = run_verify(
            directory, against=against, workers=workers, engine=opened, progress=progress
        )
    if json:
        print_json({"ok": result.ok} | asdict(result))
    else:
        _print_result(directory, result)
    if not result.ok:
        raise typer.Exit(1)


def _print_result(directory: str, result: Verification) -> None:
    for failure in result.failures:
        say(Text.assemble(("failed", "red"), f" {failure}"))
    verdict = "whole" if result.ok else f"damaged: {len(result.failures)} checks failed"
    say(f"{directory} is {verdict} ({result.n_tensors} tensors, {result.n_files} files)")
