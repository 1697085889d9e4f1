"""What callers see of an engine: workers that prepare once, tasks, and results as they come.

A caller does not know where its workers run. What it hands to them must pickle: a function that
prepares a worker, the function's arguments, the tasks, and what they result in.
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
"""A prepared worker: does one task. It may advance the stage that its caller began, or begin others
of its own, which are shown where the worker is this process."""


@dataclass(frozen=True)
class Needs:
    """What each worker takes beside its threads: memory (0: hardly any) and GPUs."""

    memory_bytes: int = 0
    gpus: float = 0.0


class Team(Protocol[Task, Result_co]):
    """Prepared workers."""

    def results(
        self,
        sequences: Iterable[Iterable[Task]],
        goes_on: Callable[[Task, Result_co], bool] = ...,
    ) -> Iterator[tuple[Task, Result_co]]:
        """Each task with its result, in the order in which they finish.

        sequences: of tasks. The next task of one begins when the last one is done, before other
        sequences; a sequence is left as soon as goes_on denies it of a task and its result.
        Raises what a task raises, and then drops the others.
        """
        ...


class Engine(Protocol):
    """Starts workers."""

    @property
    def n_workers(self) -> int:
        """How many there are, at most."""
        ...

    @property
    def n_threads(self) -> int:
        """The threads that each of them may use."""
        ...

    def start(
        self,
        prepare: Callable[..., Work[Task, Result]],
        arguments: tuple[Any, ...],
        progress: Progress,
        needs: Needs = ...,
    ) -> AbstractContextManager[Team[Task, Result]]:
        """Workers for the length of a `with`, each made by `prepare(*arguments)`.

        progress: told what workers advance.
        """
        ...


def always(_task: object, _result: object) -> bool:
    """Goes on with every sequence."""
    return True


def independent(tasks: Iterable[Task]) -> Iterator[tuple[Task]]:
    """Tasks that wait for no other one."""
    return ((task,) for task in tasks)


@dataclass(eq=False)
class Item(Generic[Task]):
    """A task under way, what follows on it, and how often it was given to a worker."""

    task: Task
    rest: Iterator[Task]
    n_attempts: int = 0


class Agenda(Generic[Task, Result]):
    """Which task comes next."""

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
        """The next task, or None where all others wait for one that is under way, or are done."""
        if self._again:
            return self._again.popleft()
        while self._sequences:
            sequence = self._sequences.popleft()
            for task in sequence:
                return Item(task, sequence)
        return None

    def finish(self, item: Item[Task], result: Result) -> None:
        """A task is done: what follows on it comes first."""
        if self._goes_on(item.task, result):
            self._sequences.appendleft(item.rest)

    def give_back(self, item: Item[Task]) -> None:
        """A task was begun in vain: it comes first."""
        self._again.append(item)
