"""The threads of one worker: the work is native code that releases the GIL."""

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
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(asked: int | None) -> int:
    """How many threads or workers to start; raises InputError for a number that makes no sense."""
    if asked is None:
        return available_cores()
    if not 1 <= asked <= 1024:
        raise InputError(f"workers is {asked}; expected 1 to 1024")
    return asked


class Threads:
    """A pool of threads, and results in the order of the tasks, however they finish."""

    def __init__(self, pool: ThreadPoolExecutor, n_threads: int) -> None:
        self._pool, self.n_threads = pool, n_threads

    @classmethod
    @contextmanager
    def start(cls, n_threads: int) -> Iterator[Threads]:
        """A pool for the length of a `with`; when that ends early, waiting tasks are dropped."""
        pool = ThreadPoolExecutor(n_threads, thread_name_prefix="isotone")
        try:
            yield cls(pool, n_threads)
        finally:
            pool.shutdown(cancel_futures=True)

    def map(
        self, task: Callable[[Item], Result], items: Iterable[Item], ahead: int
    ) -> Iterator[Result]:
        """Results of `task` for each item, in order, with up to `ahead` tasks under way.

        Items are drawn only as there is room, so memory is bounded by `ahead` tasks whatever the
        number of items, and items may themselves come from another `map`.
        """
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(task, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
