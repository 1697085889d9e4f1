"""What callers see of an engine: workers that prepare once, tasks, and results as they come.

A caller does not know where its workers run. Everything that passes between them must pickle: the
function that prepares a worker, the function's arguments, the tasks, and their results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from isotone.engine.progress import Progress

Task = TypeVar("Task")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

Work: TypeAlias = Callable[[Task, Progress], Result]
"""A prepared worker, which does one task. It may advance the stage that its caller began, or begin
stages of its own, which are shown if the worker is this process."""


@dataclass(frozen=True)
class Needs:
    """What each worker takes beside its threads.

    Attributes
    ----------
    memory_bytes : int
        The memory in bytes; 0 for hardly any.
    gpus : float
        The GPUs; may be a fraction of one.
    """

    memory_bytes: int = 0
    gpus: float = 0.0


class Team(Protocol[Task, Result_co]):
    """The prepared workers of an engine."""

    def results(
        self,
        sequences: Iterable[Iterable[Task]],
        goes_on: Callable[[Task, Result_co], bool] = ...,
    ) -> Iterator[tuple[Task, Result_co]]:
        """Do tasks, and yield each with its result, in the order in which they finish.

        Parameters
        ----------
        sequences : iterable of iterable of Task
            Sequences of tasks. The next task of a sequence begins when the one before it is done,
            and before other sequences begin.
        goes_on : callable
            Given a task and its result: whether the rest of its sequence is done too. By default
            it always is.

        Yields
        ------
        task : Task
            A task that is done.
        result : Result
            What it resulted in.

        Raises
        ------
        Exception
            What a task raises; the other tasks are dropped then.
        """
        ...


class Engine(Protocol):
    """Starts workers, in whatever place."""

    @property
    def n_workers(self) -> int:
        """How many workers there are, at most."""
        ...

    @property
    def n_threads(self) -> int:
        """The threads that each worker may use."""
        ...

    def start(
        self,
        prepare: Callable[..., Work[Task, Result]],
        arguments: tuple[Any, ...],
        progress: Progress,
        needs: Needs = ...,
    ) -> AbstractContextManager[Team[Task, Result]]:
        """Start workers for the length of a `with`.

        Parameters
        ----------
        prepare : callable
            Makes a worker of `arguments`, once in each worker's place.
        arguments : tuple
            The arguments of `prepare`.
        progress : Progress
            Is told how far the workers have come.
        needs : Needs
            What each worker takes beside its threads.

        Returns
        -------
        context manager of Team
            The workers.
        """
        ...


def always(_task: object, _result: object) -> bool:
    """Return True: every sequence is done to its end."""
    return True


def independent(tasks: Iterable[Task]) -> Iterator[tuple[Task]]:
    """Make a sequence of each task, so that no task waits for another one.

    Parameters
    ----------
    tasks : iterable of Task
        The tasks.

    Returns
    -------
    iterator of (Task,)
        Sequences for `Team.results`.

    Examples
    --------
    >>> list(independent("ab"))
    [('a',), ('b',)]
    """
    return ((task,) for task in tasks)


@dataclass(eq=False)
class Item(Generic[Task]):
    """A task that was begun.

    Attributes
    ----------
    task : Task
        The task.
    rest : iterator of Task
        The tasks that follow it in its sequence.
    n_attempts : int
        How often it was given to a worker.
    """

    task: Task
    rest: Iterator[Task]
    n_attempts: int = 0


class Agenda(Generic[Task, Result]):
    """Decides which task comes next.

    Parameters
    ----------
    sequences : iterable of iterable of Task
        Sequences of tasks.
    goes_on : callable
        Given a task and its result: whether the rest of its sequence is done too.
    """

    def __init__(
        self, sequences: Iterable[Iterable[Task]], goes_on: Callable[[Task, Result], bool]
    ) -> None:
        self._sequences = deque(map(iter, sequences))
        self._again: deque[Item[Task]] = deque()
        self._goes_on = goes_on

    @property
    def n_waiting(self) -> int:
        """How many tasks could begin now, at most."""
        return len(self._again) + len(self._sequences)

    def take(self) -> Item[Task] | None:
        """Return the next task, or None if all others are done, or wait for one that was begun."""
        if self._again:
            return self._again.popleft()
        while self._sequences:
            sequence = self._sequences.popleft()
            for task in sequence:
                return Item(task, sequence)
        return None

    def finish(self, item: Item[Task], result: Result) -> None:
        """Note that a task is done; the task that follows it comes next.

        Parameters
        ----------
        item : Item
            The task, as `take` returned it.
        result : Result
            What it resulted in.
        """
        if self._goes_on(item.task, result):
            self._sequences.appendleft(item.rest)

    def give_back(self, item: Item[Task]) -> None:
        """Note that a task was lost with its worker; it comes next.

        Parameters
        ----------
        item : Item
            The task, as `take` returned it.
        """
        self._again.append(item)
