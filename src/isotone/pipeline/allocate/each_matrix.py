"""One thing found of each matrix of a model, wherever workers run, and in the matrices' order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeAlias, TypeVar

from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine, independent
from isotone.engine.threads import Threads
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.plan.tensors import Clustered

Found = TypeVar("Found")

Group: TypeAlias = tuple[Clustered, ...]
"""Tensors that one worker takes as one task."""

_Task: TypeAlias = tuple[int, Group, tuple[Any, ...]]


def matrices_of(plans: Iterable[Clustered]) -> Iterable[PlannedMatrix]:
    """The matrices of some tensors, in order."""
    return (PlannedMatrix(plan, index) for plan in plans for index in range(plan.n_matrices))


@contextmanager
def each_matrix(
    engine: Engine,
    find: Callable[..., Found],
    groups: Sequence[Group],
    progress: Progress,
) -> Iterator[Callable[..., list[Found]]]:
    """Workers that find something; yields what asks them: `ask(stage, *arguments)`.

    find: of a PlannedMatrix and the arguments; pickles, where workers are elsewhere. What it keeps
    in itself lasts from one asking to the next, in each worker. groups: of tensors, one task each.
    What is found comes in the order of the matrices, whoever found it.
    """
    n_bytes = [sum(plan.tensor.n_bytes for plan in group) for group in groups]
    by_size = sorted(range(len(groups)), key=lambda i: -n_bytes[i])  # large ones would come late
    with engine.start(_EachMatrix, (find, engine.n_threads), progress) as team:

        def ask(stage: str, *arguments: Any) -> list[Found]:  # noqa: ANN401 (what `find` takes)
            progress.begin(stage, sum(n_bytes))
            tasks = [(i, groups[i], arguments) for i in by_size]
            found = {task[0]: of_group for task, of_group in team.results(independent(tasks))}
            return [each for i in range(len(groups)) for each in found[i]]

        yield ask


class _EachMatrix(Generic[Found]):
    """A worker: the matrices of a group, on its threads."""

    def __init__(self, find: Callable[..., Found], n_threads: int) -> None:
        self._find, self._n_threads = find, n_threads

    def __call__(self, task: _Task, progress: Progress) -> list[Found]:
        _, group, arguments = task

        def find(matrix: PlannedMatrix) -> tuple[PlannedMatrix, Found]:
            return matrix, self._find(matrix, *arguments)

        found = []
        with Threads.start(self._n_threads) as threads:
            for matrix, each in threads.map(find, matrices_of(group), ahead=2 * self._n_threads):
                found.append(each)
                progress.advance(matrix.plan.tensor.n_bytes // matrix.plan.n_matrices)
        return found
