"""Workers on this machine: one is this process itself, several are processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic

from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Agenda, Item, Needs, Result, Task, Team, Work, always
from isotone.engine.threads import available_cores, worker_count


class LocalEngine:
    """The engine of one machine.

    It does not check that the machine has the memory and the GPUs that workers need.

    Parameters
    ----------
    n_workers : int
        How many workers there are: 1 works in this process, more are processes of their own.
    n_threads : int, optional
        The threads of each worker; by default the workers share the cores of this process.

    Raises
    ------
    InputError
        If a number is not 1 to 1024.
    """

    def __init__(self, n_workers: int = 1, n_threads: int | None = None) -> None:
        self.n_workers = worker_count(n_workers)
        shared = max(1, available_cores() // self.n_workers)
        self.n_threads = shared if n_threads is None else worker_count(n_threads)

    @contextmanager
    def start(
        self,
        prepare: Callable[..., Work[Task, Result]],
        arguments: tuple[Any, ...],
        progress: Progress,
        needs: Needs = Needs(),  # noqa: ARG002, B008 (frozen)
    ) -> Iterator[Team[Task, Result]]:
        """Start workers for the length of a `with`; see `Engine.start`.

        Parameters
        ----------
        prepare : callable
            Makes a worker of `arguments`, in the worker's process.
        arguments : tuple
            The arguments of `prepare`; they must pickle if there are several workers.
        progress : Progress
            Told what a worker in this process advances.
        needs : Needs
            Ignored.

        Yields
        ------
        Team
            The workers. Processes are spawned and not forked, because torch does not survive a
            fork.
        """
        if self.n_workers == 1:
            yield _Here(prepare(*arguments), progress)
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            self.n_workers, context, initializer=_prepare, initargs=(prepare, arguments)
        )
        try:
            yield _Processes(pool, self.n_workers)
        finally:
            pool.shutdown(cancel_futures=True)


class _Here(Generic[Task, Result]):
    """The only worker, in this process."""

    def __init__(self, work: Work[Task, Result], progress: Progress) -> None:
        self._work, self._progress = work, progress

    def results(
        self,
        sequences: Iterable[Iterable[Task]],
        goes_on: Callable[[Task, Result], bool] = always,
    ) -> Iterator[tuple[Task, Result]]:
        agenda = Agenda(sequences, goes_on)
        while (item := agenda.take()) is not None:
            result = self._work(item.task, self._progress)
            yield item.task, result
            agenda.finish(item, result)


class _Processes(Generic[Task, Result]):
    """Several workers, in processes of their own."""

    def __init__(self, pool: ProcessPoolExecutor, n_workers: int) -> None:
        self._pool, self._n_workers = pool, n_workers

    def results(
        self,
        sequences: Iterable[Iterable[Task]],
        goes_on: Callable[[Task, Result], bool] = always,
    ) -> Iterator[tuple[Task, Result]]:
        agenda = Agenda(sequences, goes_on)
        running: dict[Future[Result], Item[Task]] = {}
        while True:
            while len(running) < self._n_workers and (item := agenda.take()) is not None:
                running[self._pool.submit(_do, item.task)] = item
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                item = running.pop(future)
                result = future.result()
                yield item.task, result
                agenda.finish(item, result)


_work: list[Work[Any, Any]] = []  # in a process of the pool: its worker


def _prepare(prepare: Callable[..., Work[Any, Any]], arguments: tuple[Any, ...]) -> None:
    _work[:] = [prepare(*arguments)]


def _do(task: Any) -> Any:  # noqa: ANN401 (a Task, and its Result)
    return _work[0](task, Silent())
