"""Workers on the nodes of a Ray cluster.

Each worker is an actor, which holds what it prepared (see `ray_worker`); `ray_team` gives the tasks
out. When this process ends, Ray ends its workers.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from typing import Any, Self, TextIO

from isotone.engine.progress import Progress
from isotone.engine.ray_team import PATIENCE_SECONDS, RayTeam, error_lines
from isotone.engine.ray_worker import Worker
from isotone.engine.tasks import Needs, Result, Task, Team, Work
from isotone.errors import InputError, MissingExtraError

_log = logging.getLogger(__name__)
_RAY_THREADS = "ray_"  # how the names of the threads begin that Ray starts in this process
_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a coming default, of which Ray warns otherwise
    "RAY_USAGE_STATS_ENABLED": "0",
}


class RayEngine:
    """The engine of a Ray cluster.

    Parameters
    ----------
    n_workers : int or None
        How many workers to start; None for as many as there is room for.
    n_threads : int
        The threads of each worker, for each of which it takes a core.
    """

    def __init__(self, n_workers: int | None, n_threads: int) -> None:
        self._n_workers, self.n_threads = n_workers, n_threads

    @classmethod
    @contextmanager
    def connect(
        cls, address: str | None = None, n_workers: int | None = None, n_threads: int = 1
    ) -> Iterator[Self]:
        """Join a cluster for the length of a `with`.

        Parameters
        ----------
        address : str, optional
            The cluster's address, as Ray takes it. By default that of RAY_ADDRESS, or of a cluster
            that runs on this machine; if there is none, a cluster is started here.
        n_workers : int, optional
            How many workers to start; by default as many as there is room for. More workers than
            that wait for nodes to join.
        n_threads : int
            The threads of each worker, for each of which it takes a core.

        Yields
        ------
        RayEngine
            The engine.

        Raises
        ------
        InputError
            If no cluster answers at the address.
        MissingExtraError
            If Ray is not installed.
        """
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError:
            raise MissingExtraError("--engine ray", "ray") from None
        joined = not ray.is_initialized()
        if joined:
            try:
                _check_address(address or os.environ.get("RAY_ADDRESS", ""))
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, RuntimeError, ValueError) as error:
                reason = error_lines(error)[0]
                raise InputError(
                    f"address is {address}: no Ray cluster answers there ({reason}); "
                    "start one with ray start --head, give its address, or set "
                    "RAY_AUTH_MODE=token where it asks for a token"
                ) from error
        try:
            yield cls(n_workers, n_threads)
        finally:
            if joined:
                ray.shutdown()

    @property
    def n_workers(self) -> int:
        """As many as were asked for, or as there is room for if they need cores only."""
        return self._n_workers or max(1, self._room(Needs()))

    @contextmanager
    def start(
        self,
        prepare: Callable[..., Work[Task, Result]],
        arguments: tuple[Any, ...],
        progress: Progress,
        needs: Needs = Needs(),  # noqa: B008 (frozen)
    ) -> Iterator[Team[Task, Result]]:
        """Start workers for the length of a `with`; see `Engine.start`.

        Parameters
        ----------
        prepare : callable
            Makes a worker of `arguments`, on its node.
        arguments : tuple
            The arguments of `prepare`; they must pickle.
        progress : Progress
            Is told how far the workers have come.
        needs : Needs
            What each worker takes beside its threads.

        Yields
        ------
        Team
            The workers.

        Raises
        ------
        InputError
            If no node could ever hold a worker.
        """
        import ray

        if not self._n_workers and not self._room(needs):
            raise InputError(
                f"no node of the cluster has room for a worker: {self._wanted(needs)}; add nodes, "
                "or give --workers, which then wait for nodes"
            )
        actor = ray.remote(Worker).options(
            num_cpus=self.n_threads,
            num_gpus=needs.gpus,
            memory=needs.memory_bytes,
            max_concurrency=2,  # a task, and the question how far it is
        )
        # Pickled here, so that what cannot be opened on a node is reported by its worker.
        work = ray.put(pickle.dumps((prepare, arguments)))
        team: RayTeam[Task, Result] = RayTeam(
            start_worker=lambda: actor.remote(work, version("isotone")),
            n_workers=lambda: self._n_workers or max(1, self._room(needs)),
            wanted=self._wanted(needs),
            progress=progress,
        )
        try:
            yield team
        finally:
            team.stop()

    def _room(self, needs: Needs) -> int:
        """Return how many workers fit on the nodes that are alive."""
        import ray

        wanted = {"CPU": self.n_threads, "GPU": needs.gpus, "memory": needs.memory_bytes}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return sum(
            int(min(node.get(what, 0.0) // n for what, n in wanted.items() if n)) for node in nodes
        )

    def _wanted(self, needs: Needs) -> str:
        wanted = [f"{self.n_threads} cores"]
        wanted += [f"{needs.memory_bytes / 1e9:.1f} GB of memory"] if needs.memory_bytes else []
        wanted += [f"{needs.gpus:g} GPUs"] if needs.gpus else []
        return ", ".join(wanted)


@contextmanager
def without_ray_reports() -> Iterator[None]:
    """Keep what Ray prints by itself out of the output of a command.

    Ray prints reports of lost nodes to stdout, from threads of its own and whatever it is told
    (`log_to_driver` concerns the output of workers only). A command's stdout is one JSON object for
    a script, and the loss of a node is no error, because its tasks are done elsewhere. So Ray's
    reports go to the log (`isotone.engine.ray_engine`, at level INFO). Whatever else is printed
    goes to stderr.

    Yields
    ------
    None
        While the `with` lasts, nothing is printed to stdout.
    """
    with redirect_stdout(_Sorted(sys.stderr)):
        yield


class _Sorted(io.TextIOBase):
    """A stream that passes on what is printed, except by a thread of Ray's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith(_RAY_THREADS):
            if text.strip():
                _log.info(text.rstrip())
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


def _check_address(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS).close()
