"""Tasks in processes that prepare once: sequences, early ends, errors."""

from __future__ import annotations

import os

import pytest

from isotone.engine.processes import as_they_come, start_processes

prepared: list[int] = []


def prepare(offset):
    prepared[:] = [offset]


def work(task):
    if task < 0:
        raise ValueError(f"task {task}")
    return task + prepared[0], os.getpid()


def below_100(task, _result):
    return task < 100


@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_task_is_done_once_by_a_prepared_process(n_workers):
    sequences = [[n, n + 1] for n in range(0, 20, 2)] + [[]]
    with start_processes(n_workers, prepare, (1000,)) as executor:
        found = list(as_they_come(executor, work, sequences, below_100, n_workers))
    assert sorted(task for task, _ in found) == list(range(20))
    assert all(result == task + 1000 for task, (result, _) in found)
    pids = {pid for _, (_, pid) in found}
    assert (os.getpid() in pids) == (n_workers == 1)
    assert len(pids) <= n_workers


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_sequence_keeps_its_order_and_ends_early(n_workers):
    sequences = [[1, 100, 2], [3, 4, 5]]
    with start_processes(n_workers, prepare, (0,)) as executor:
        found = [task for task, _ in as_they_come(executor, work, sequences, below_100, n_workers)]
    assert sorted(found) == [1, 3, 4, 5, 100]
    assert [task for task in found if task in (1, 100)] == [1, 100]
    assert [task for task in found if task in (3, 4, 5)] == [3, 4, 5]
    if n_workers == 1:
        assert found == [1, 100, 3, 4, 5], "a sequence that has begun goes first"


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_error_comes_out_and_ends_it(n_workers):
    with (
        start_processes(n_workers, prepare, (0,)) as executor,
        pytest.raises(ValueError, match="task -1"),
    ):
        list(as_they_come(executor, work, [[-1], *([n] for n in range(50))], below_100, n_workers))
