"""Workers on the nodes of a Ray cluster.

Each worker is an actor, which holds what it prepared. Tasks are given out here, one at a time, to
whoever is idle: a node that comes late gets some, and one that is slow gets fewer. A task whose
worker is lost, with its node or alone, is given to another one; what a lost worker may still be
writing is left to the callers, who give every attempt a place of its own. When this process goes,
Ray ends its workers.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, Self

from isotone.engine.progress import Progress
from isotone.engine.ray_worker import Done, Failed, Worker
from isotone.engine.tasks import Agenda, Item, Needs, Result, Task, Team, Work, always
from isotone.errors import InputError, MissingExtraError

_TICK_SECONDS = 0.25
_PATIENCE_SECONDS = 10.0
_MOST_ATTEMPTS = 4
_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by itself, and warns of
    "RAY_USAGE_STATS_ENABLED": "0",
}


class RayEngine:
    """The engine of a Ray cluster."""

    def __init__(self, n_workers: int | None, n_threads: int) -> None:
        self._n_workers, self.n_threads = n_workers, n_threads

    @classmethod
    @contextmanager
    def connect(
        cls, address: str | None = None, n_workers: int | None = None, n_threads: int = 1
    ) -> Iterator[Self]:
        """Join a cluster for the length of a `with`.

        address: of the cluster, as Ray takes it; by default that of RAY_ADDRESS, or a cluster that
        runs on this machine, or one that is started here. n_workers: as many as there is room for
        by default; more than that wait for nodes to come. n_threads: of each worker, a core each.

        Raises InputError where there is no cluster at the address.
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
                _knock(address or os.environ.get("RAY_ADDRESS", ""))
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"address is {address}: no Ray cluster answers there ({_lines(error)[0]}); "
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
        """As many as were asked for, or as there is room for where these need nothing else."""
        return self._n_workers or max(1, self._room(Needs()))

    @contextmanager
    def start(
        self,
        prepare: Callable[..., Work[Task, Result]],
        arguments: tuple[Any, ...],
        progress: Progress,
        needs: Needs = Needs(),  # noqa: B008 (frozen)
    ) -> Iterator[Team[Task, Result]]:
        """See Engine. Raises InputError where no node could ever hold a worker."""
        import ray

        if not self._n_workers and not self._room(needs):
            raise InputError(
                f"no node of the cluster has room for a worker: {self._wanted(needs)}; add nodes, "
                "or say how many --workers shall wait for some"
            )
        actor = ray.remote(Worker).options(
            num_cpus=self.n_threads,
            num_gpus=needs.gpus,
            memory=needs.memory_bytes,
            max_concurrency=2,  # a task, and being asked how far it is
        )
        # In bytes: what cannot be opened on a node is then the worker's to say.
        work = ray.put(pickle.dumps((prepare, arguments)))
        crew: _Crew[Task, Result] = _Crew(
            hire=lambda: actor.remote(work, version("isotone")),
            n_workers=lambda: self._n_workers or max(1, self._room(needs)),
            wanted=self._wanted(needs),
            progress=progress,
        )
        try:
            yield crew
        finally:
            crew.dismiss()

    def _room(self, needs: Needs) -> int:
        """How many workers fit on the nodes that are alive."""
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


@dataclass(eq=False)
class _Assignment(Generic[Task]):
    """A task that a worker is at, and what it has said to have advanced."""

    actor: Any
    item: Item[Task]
    n_advanced: int = 0


class _Crew(Generic[Task, Result]):
    """The team of a cluster.

    Workers are starting, idle or at a task; `_starting`, `_running` and `_asked` are what is being
    waited for.
    """

    def __init__(
        self,
        hire: Callable[[], Any],
        n_workers: Callable[[], int],
        wanted: str,
        progress: Progress,
    ) -> None:
        """hire: makes an actor. n_workers: how many there may be now."""
        self._hire, self._n_workers, self._wanted = hire, n_workers, wanted
        self._progress = progress
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._running: dict[Any, _Assignment[Task]] = {}
        self._asked: dict[Any, _Assignment[Task]] = {}
        self._n_failed_starts = 0
        self._waiting_since: float | None = None

    def results(
        self,
        sequences: Iterable[Iterable[Task]],
        goes_on: Callable[[Task, Result], bool] = always,
    ) -> Iterator[tuple[Task, Result]]:
        agenda = Agenda(sequences, goes_on)
        while True:
            self._hire_for(agenda)
            self._assign(agenda)
            if not self._running and not agenda.n_waiting:
                return
            for ref in self._events():
                if ref in self._starting:
                    self._started(self._starting.pop(ref), ref)
                elif ref in self._asked:
                    self._heard(self._asked.pop(ref), ref)
                elif (done := self._ended(self._running.pop(ref), ref, agenda)) is not None:
                    item, result = done
                    yield item.task, result
                    agenda.finish(item, result)

    def dismiss(self) -> None:
        """End all workers."""
        import ray

        at_work = [assignment.actor for assignment in self._running.values()]
        for actor in [*self._starting.values(), *self._idle, *at_work]:
            ray.kill(actor)

    def _dismiss_idle(self) -> None:
        import ray

        while self._idle:
            ray.kill(self._idle.pop())

    def _hire_for(self, agenda: Agenda[Task, Result]) -> None:
        if not agenda.n_waiting or self._starting or self._idle:
            return
        n_useful = min(self._n_workers(), agenda.n_waiting + len(self._running))
        for _ in range(n_useful - len(self._running)):
            actor = self._hire()
            self._starting[actor.ready.remote()] = actor

    def _assign(self, agenda: Agenda[Task, Result]) -> None:
        while self._idle and (item := agenda.take()) is not None:
            actor = self._idle.pop()
            item.n_attempts += 1
            self._running[actor.do.remote(item.task)] = _Assignment(actor, item)

    def _events(self) -> list[Any]:
        """What has happened within a tick: calls that have returned."""
        import ray

        asked = {id(assignment) for assignment in self._asked.values()}
        for assignment in self._running.values():
            if id(assignment) not in asked:
                self._asked[assignment.actor.n_advanced.remote()] = assignment
        calls = [*self._starting, *self._running]
        if not self._running and self._starting:
            self._say_what_is_awaited()
        ray.wait(calls, num_returns=1, timeout=_TICK_SECONDS)
        calls += self._asked
        return list(ray.wait(calls, num_returns=len(calls), timeout=0)[0])

    def _say_what_is_awaited(self) -> None:
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > _PATIENCE_SECONDS:
            self._progress.note(f"waiting for a node with {self._wanted}")

    def _started(self, actor: Any, ref: Any) -> None:  # noqa: ANN401 (Ray's)
        import ray

        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            self._n_failed_starts += 1
            if self._n_failed_starts == _MOST_ATTEMPTS:
                raise InputError(
                    f"workers do not start on the cluster: {_lines(error)[-1]}; every node needs "
                    "the same isotone, Python and Ray as this one"
                ) from error
            return
        self._n_failed_starts, self._waiting_since = 0, None
        self._idle.append(actor)

    def _heard(self, assignment: _Assignment[Task], ref: Any) -> None:  # noqa: ANN401 (Ray's)
        import ray

        if assignment not in self._running.values():
            return  # it has ended meanwhile, and all of it was counted
        try:
            self._count(assignment, ray.get(ref))
        except ray.exceptions.RayError:
            return  # its task will tell

    def _count(self, assignment: _Assignment[Task], n_advanced: int) -> None:
        self._progress.advance(n_advanced - assignment.n_advanced)
        assignment.n_advanced = n_advanced

    def _ended(
        self,
        assignment: _Assignment[Task],
        ref: Any,  # noqa: ANN401 (Ray's)
        agenda: Agenda[Task, Result],
    ) -> tuple[Item[Task], Result] | None:
        """What a task resulted in; None where its worker was lost and it comes again."""
        import ray

        try:
            done: Done[Result] | Failed = ray.get(ref)
        except ray.exceptions.RayTaskError:
            raise  # a defect of isotone's, with the trace of where it was
        except ray.exceptions.RayError as error:
            ray.kill(assignment.actor)  # it may be cut off from here, and alive
            self._count(assignment, 0)
            if assignment.item.n_attempts == _MOST_ATTEMPTS:
                raise InputError(
                    f"a task was lost with its worker {_MOST_ATTEMPTS} times, the last time: "
                    f"{_lines(error)[0]}; give each worker more memory, with fewer --workers"
                ) from error
            agenda.give_back(assignment.item)
            self._dismiss_idle()  # some may have died with their node: only new ones are sure
            return None
        if isinstance(done, Failed):
            raise done.error()
        self._count(assignment, done.n_advanced)
        self._idle.append(assignment.actor)
        return assignment.item, done.result


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()


def _lines(error: BaseException) -> list[str]:
    """What Ray says: how a worker was lost comes first, why one did not start comes last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines or [type(error).__name__]
