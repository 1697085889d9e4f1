"""The options that say where a command works, and what opens that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated

import typer

from isotone.engine.tasks import Engine
from isotone.engine.threads import worker_count
from isotone.errors import InputError

# isotone.engine.ray_engine brings Ray: imported where it is asked for.

EngineName = Annotated[
    str, typer.Option("--engine", help="Where to work: local (this machine), or ray (a cluster).")
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Of the Ray cluster; else RAY_ADDRESS, or one that runs or is started here.",
    ),
]
Cores = Annotated[
    int | None, typer.Option(help="Of each worker on a Ray cluster: 1 by default.", min=1)
]


@contextmanager
def opened_engine(
    name: str, address: str | None, cores: int | None, workers: int | None
) -> Iterator[Engine | None]:
    """The engine of a command; None for the local one, which the command makes by itself.

    Raises InputError for options that do not go together.
    """
    if name == "local":
        for option, value in (("--address", address), ("--cores", cores)):
            if value is not None:
                raise InputError(f"{option} is {value}, and the engine is local; add --engine ray")
        yield None
    elif name == "ray":
        from isotone.engine.ray_engine import RayEngine

        if workers is not None:
            worker_count(workers)
        # Ray tells of dead nodes on stdout, where a script expects one JSON object.
        with (
            RayEngine.connect(address, workers, cores or 1) as cluster,
            redirect_stdout(sys.stderr),
        ):
            yield cluster
    else:
        raise InputError(f"engine is {name!r}; expected local or ray")
