"""Computes something for each matrix of a model, on any engine, in the order of the matrices."""

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
"""The tensors that one worker takes as one task."""

_Task: TypeAlias = tuple[int, Group, tuple[Any, ...]]


def matrices_of(plans: Iterable[Clustered]) -> Iterable[PlannedMatrix]:
    """Return the matrices of some tensors.

    Parameters
    ----------
    plans : iterable of Clustered
        The tensors.

    Returns
    -------
    iterable of PlannedMatrix
        Their matrices, in order.
    """
    return (PlannedMatrix(plan, index) for plan in plans for index in range(plan.n_matrices))


@contextmanager
def each_matrix(
    engine: Engine,
    compute: Callable[..., Found],
    groups: Sequence[Group],
    progress: Progress,
) -> Iterator[Callable[..., list[Found]]]:
    """Start workers that compute something for each matrix, for the length of a `with`.

    Parameters
    ----------
    engine : Engine
        Where the workers run.
    compute : callable
        Takes a PlannedMatrix and further arguments, on several threads at once. It pickles where
        workers are other processes. What it keeps in itself lasts from one call to the next, in
        each worker.
    groups : sequence of tuple of Clustered
        The tensors; each group is one task.
    progress : Progress
        Is told how many dense bytes are done.

    Yields
    ------
    callable
        `compute_all(stage, *arguments)` computes all results with the same arguments, and returns
        them in the order of the matrices, whoever computed them. `stage` is what people are shown.
    """
    n_bytes = [sum(plan.tensor.n_bytes for plan in group) for group in groups]
    by_size = sorted(range(len(groups)), key=lambda i: -n_bytes[i])  # large groups would end late
    with engine.start(_EachMatrix, (compute, engine.n_threads), progress) as team:

        def compute_all(stage: str, *arguments: Any) -> list[Found]:  # noqa: ANN401 (as `compute`)
            progress.begin(stage, sum(n_bytes))
            tasks = [(i, groups[i], arguments) for i in by_size]
            found = {task[0]: of_group for task, of_group in team.results(independent(tasks))}
            return [each for i in range(len(groups)) for each in found[i]]

        yield compute_all


class _EachMatrix(Generic[Found]):
    """A worker that takes the matrices of one group after the other, on its threads."""

    def __init__(self, compute: Callable[..., Found], n_threads: int) -> None:
        self._compute, self._n_threads = compute, n_threads

    def __call__(self, task: _Task, progress: Progress) -> list[Found]:
        _, group, arguments = task

        def compute(matrix: PlannedMatrix) -> tuple[PlannedMatrix, Found]:
            return matrix, self._compute(matrix, *arguments)

        found = []
        with Threads.start(self._n_threads) as threads:
            results = threads.map(compute, matrices_of(group), ahead=2 * self._n_threads)
            for matrix, each in results:
                found.append(each)
                progress.advance(matrix.plan.tensor.n_bytes // matrix.plan.n_matrices)
        return found
