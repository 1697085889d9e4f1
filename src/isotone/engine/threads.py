"""The threads of one worker, for native code that releases the GIL."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from isotone.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(asked: int | None) -> int:
    """Return how many threads or workers to start.

    Parameters
    ----------
    asked : int or None
        What the user asks for, 1 to 1024; None for one for each core.

    Returns
    -------
    int
        The number.

    Raises
    ------
    InputError
        If the number is not 1 to 1024.

    Examples
    --------
    >>> worker_count(3)
    3
    """
    if asked is None:
        return available_cores()
    if not 1 <= asked <= 1024:
        raise InputError(f"workers is {asked}; expected 1 to 1024")
    return asked


class Threads:
    """A pool of threads that returns results in the order of the tasks.

    Parameters
    ----------
    pool : ThreadPoolExecutor
        The pool.
    n_threads : int
        How many threads it has.
    """

    def __init__(self, pool: ThreadPoolExecutor, n_threads: int) -> None:
        self._pool, self.n_threads = pool, n_threads

    @classmethod
    @contextmanager
    def start(cls, n_threads: int) -> Iterator[Threads]:
        """Start a pool for the length of a `with`.

        Parameters
        ----------
        n_threads : int
            How many threads it has.

        Yields
        ------
        Threads
            The pool. If the `with` ends early, waiting tasks are dropped.
        """
        pool = ThreadPoolExecutor(n_threads, thread_name_prefix="isotone")
        try:
            yield cls(pool, n_threads)
        finally:
            pool.shutdown(cancel_futures=True)

    def map(
        self, task: Callable[[Item], Result], items: Iterable[Item], ahead: int
    ) -> Iterator[Result]:
        """Do a task for each item, several at once, and yield the results in order.

        Parameters
        ----------
        task : callable
            Makes a result of an item.
        items : iterable
            The items. They are drawn only as there is room, and may come from another `map`.
        ahead : int
            How many tasks are begun at most before the first of their results is taken. It bounds
            the memory, whatever the number of items.

        Yields
        ------
        Result
            The results, in the order of the items.
        """
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(task, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
