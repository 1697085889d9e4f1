"""Tasks in processes that each prepare once, and results as they come.

For work that threads cannot share, such as a model that each task changes for its own length.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def start_processes(
    n_workers: int, prepare: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[Executor]:
    """So many processes, each having called `prepare`; a single one is this process itself.

    prepare, arguments, tasks and results must pickle where there are several. Processes are
    started afresh (spawned), for torch does not survive a fork. When the `with` ends early,
    waiting tasks are dropped.
    """
    if n_workers == 1:
        prepare(*arguments)
        yield _Here()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(n_workers, context, initializer=prepare, initargs=arguments)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Here(Executor):
    """Runs a task as it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


def as_they_come(
    executor: Executor,
    function: Callable[[Task], Result],
    sequences: Iterable[Iterable[Task]],
    goes_on: Callable[[Task, Result], bool],
    n_workers: int,
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in the order in which they finish.

    sequences: of tasks. One that has begun takes the next free worker; it is left as soon as
    goes_on says so of a task and its result.
    """
    waiting = deque(map(iter, sequences))
    running: dict[Future[Result], tuple[Task, Iterator[Task]]] = {}
    while waiting or running:
        while waiting and len(running) < n_workers:
            sequence = waiting.popleft()
            for task in sequence:
                running[executor.submit(function, task)] = (task, sequence)
                break
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            task, sequence = running.pop(future)
            result = future.result()
            yield task, result
            if goes_on(task, result):
                waiting.appendleft(sequence)
