"""The workers of a Ray cluster: they are started, given tasks, asked how far they are, replaced.

Tasks are given out here, one at a time, to whichever worker is idle, so that a node that joins late
gets some and a slow node gets fewer. If a worker dies, by itself or with its node, its task is
given to another worker. A lost worker may still be writing; the callers deal with that by giving
every attempt a place of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

from isotone.engine.progress import Progress
from isotone.engine.ray_worker import Done, Failed
from isotone.engine.tasks import Agenda, Item, Result, Task, always
from isotone.errors import InputError

PATIENCE_SECONDS = 10.0
"""How long to wait for a node before saying so, and for the cluster to answer."""

_TICK_SECONDS = 0.25
_MOST_ATTEMPTS = 4


@dataclass(eq=False)
class _Assignment(Generic[Task]):
    """A task that a worker is doing, and how far it has said to be."""

    actor: Any
    item: Item[Task]
    n_advanced: int = 0


class RayTeam(Generic[Task, Result]):
    """The workers of a cluster.

    Each worker is starting, idle or doing a task; `_starting`, `_running` and `_asked` hold the
    calls that are being waited for.

    Parameters
    ----------
    start_worker : callable
        Starts an actor and returns its handle.
    n_workers : callable
        Returns how many workers there may be now.
    wanted : str
        What each worker takes, for messages.
    progress : Progress
        Is told how far the workers have come.
    """

    def __init__(
        self,
        start_worker: Callable[[], Any],
        n_workers: Callable[[], int],
        wanted: str,
        progress: Progress,
    ) -> None:
        self._start_worker, self._n_workers, self._wanted = start_worker, n_workers, wanted
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
            self._start_workers_for(agenda)
            self._assign(agenda)
            if not self._running and not agenda.n_waiting:
                return
            for ref in self._events():
                if ref in self._starting:
                    self._started(self._starting.pop(ref), ref)
                elif ref in self._asked:
                    self._advanced(self._asked.pop(ref), ref)
                elif (done := self._ended(self._running.pop(ref), ref, agenda)) is not None:
                    item, result = done
                    yield item.task, result
                    agenda.finish(item, result)

    def stop(self) -> None:
        """End all workers."""
        import ray

        at_work = [assignment.actor for assignment in self._running.values()]
        for actor in [*self._starting.values(), *self._idle, *at_work]:
            ray.kill(actor)

    def _stop_idle(self) -> None:
        import ray

        while self._idle:
            ray.kill(self._idle.pop())

    def _start_workers_for(self, agenda: Agenda[Task, Result]) -> None:
        if not agenda.n_waiting or self._starting or self._idle:
            return
        n_useful = min(self._n_workers(), agenda.n_waiting + len(self._running))
        for _ in range(n_useful - len(self._running)):
            actor = self._start_worker()
            self._starting[actor.ready.remote()] = actor

    def _assign(self, agenda: Agenda[Task, Result]) -> None:
        while self._idle and (item := agenda.take()) is not None:
            actor = self._idle.pop()
            item.n_attempts += 1
            self._running[actor.do.remote(item.task)] = _Assignment(actor, item)

    def _events(self) -> list[Any]:
        """Return the calls that have returned within a tick."""
        import ray

        asked = {id(assignment) for assignment in self._asked.values()}
        for assignment in self._running.values():
            if id(assignment) not in asked:
                self._asked[assignment.actor.n_advanced.remote()] = assignment
        calls = [*self._starting, *self._running]
        if not self._running and self._starting:
            self._report_waiting()
        ray.wait(calls, num_returns=1, timeout=_TICK_SECONDS)
        calls += self._asked
        return list(ray.wait(calls, num_returns=len(calls), timeout=0)[0])

    def _report_waiting(self) -> None:
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > PATIENCE_SECONDS:
            self._progress.note(f"waiting for a node with {self._wanted}")

    def _started(self, actor: Any, ref: Any) -> None:  # noqa: ANN401 (Ray's)
        import ray

        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            self._n_failed_starts += 1
            if self._n_failed_starts == _MOST_ATTEMPTS:
                reason = error_lines(error)[-1]
                raise InputError(
                    f"workers do not start on the cluster: {reason}; every node needs the same "
                    "isotone, Python and Ray as this one"
                ) from error
            return
        self._n_failed_starts, self._waiting_since = 0, None
        self._idle.append(actor)

    def _advanced(self, assignment: _Assignment[Task], ref: Any) -> None:  # noqa: ANN401 (Ray's)
        import ray

        if assignment not in self._running.values():
            return  # it has ended meanwhile, and was counted as a whole
        try:
            self._count(assignment, ray.get(ref))
        except ray.exceptions.RayError:
            return  # the call of its task raises too

    def _count(self, assignment: _Assignment[Task], n_advanced: int) -> None:
        self._progress.advance(n_advanced - assignment.n_advanced)
        assignment.n_advanced = n_advanced

    def _ended(
        self,
        assignment: _Assignment[Task],
        ref: Any,  # noqa: ANN401 (Ray's)
        agenda: Agenda[Task, Result],
    ) -> tuple[Item[Task], Result] | None:
        """Return the result of a task; None if its worker was lost and the task is given back."""
        import ray

        try:
            done: Done[Result] | Failed = ray.get(ref)
        except ray.exceptions.RayTaskError:
            raise  # a defect of isotone's; the trace shows where
        except ray.exceptions.RayError as error:
            ray.kill(assignment.actor)  # it may be alive, and only cut off from here
            self._count(assignment, 0)
            if assignment.item.n_attempts == _MOST_ATTEMPTS:
                raise InputError(
                    f"a task was lost with its worker {_MOST_ATTEMPTS} times, the last time: "
                    f"{error_lines(error)[0]}; give each worker more memory, with fewer --workers"
                ) from error
            agenda.give_back(assignment.item)
            self._stop_idle()  # some may have died with their node; new ones have not
            return None
        if isinstance(done, Failed):
            raise done.error()
        self._count(assignment, done.n_advanced)
        self._idle.append(assignment.actor)
        return assignment.item, done.result


def error_lines(error: BaseException) -> list[str]:
    """Return the lines of an error of Ray's.

    Parameters
    ----------
    error : BaseException
        The error.

    Returns
    -------
    list of str
        At least one line. How a worker was lost comes first, why a worker did not start comes last.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines or [type(error).__name__]
