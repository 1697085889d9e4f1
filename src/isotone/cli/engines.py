"""Opening the engine and the progress bar that a command works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from isotone.cli.console import ProgressBar, progress_bar
from isotone.engine.tasks import Engine
from isotone.engine.threads import worker_count
from isotone.errors import InputError

# isotone.engine.ray_engine imports Ray, so it is imported only where a cluster is asked for.


@contextmanager
def at_work(
    engine: str, address: str | None, cores: int | None, workers: int | None
) -> Iterator[tuple[ProgressBar, Engine | None]]:
    """Show progress and open the engine that --engine, --address, --cores and --workers describe.

    Parameters
    ----------
    engine : {"local", "ray"}
    address : str or None
        Address of the Ray cluster.
    cores : int or None
        Cores of each worker on the cluster.
    workers : int or None
        Number of workers on the cluster; the local engine is given it by the command.

    Yields
    ------
    ProgressBar, Engine or None
        None stands for the local engine, which the library makes by itself.

    Raises
    ------
    InputError
        If the options do not go together.
    """
    with progress_bar() as progress, _opened_engine(engine, address, cores, workers) as opened:
        yield progress, opened


@contextmanager
def _opened_engine(
    name: str, address: str | None, cores: int | None, workers: int | None
) -> Iterator[Engine | None]:
    if name == "local":
        for option, value in (("--address", address), ("--cores", cores)):
            if value is not None:
                raise InputError(f"{option} is {value}, and the engine is local; add --engine ray")
        yield None
    elif name == "ray":
        from isotone.engine.ray_engine import RayEngine, without_ray_reports

        if workers is not None:
            worker_count(workers)
        with RayEngine.connect(address, workers, cores or 1) as cluster, without_ray_reports():
            yield cluster
    else:
        raise InputError(f"engine is {name!r}; expected local or ray")
