"""Tasks on workers that prepare once: sequences, early ends, errors."""

from __future__ import annotations

import os

import pytest

from isotone.engine.local import LocalEngine
from isotone.engine.progress import Silent
from isotone.engine.tasks import independent
from isotone.engine.threads import available_cores
from isotone.errors import InputError


class Adding:
    """A worker that adds what it was prepared with, and says which process it is."""

    def __init__(self, offset):
        self.offset = offset

    def __call__(self, task, progress):
        if task < 0:
            raise ValueError(f"task {task}")
        progress.advance(task)
        return task + self.offset, os.getpid()


def below_100(task, _result):
    return task < 100


class Counting(Silent):
    """Progress that adds up."""

    n = 0

    def advance(self, n):
        self.n += n


@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_task_is_done_once_by_a_prepared_worker(n_workers):
    sequences = [[n, n + 1] for n in range(0, 20, 2)] + [[]]
    with LocalEngine(n_workers).start(Adding, (1000,), Silent()) as team:
        found = list(team.results(sequences, below_100))
    assert sorted(task for task, _ in found) == list(range(20))
    assert all(result == task + 1000 for task, (result, _) in found)
    pids = {pid for _, (_, pid) in found}
    assert (os.getpid() in pids) == (n_workers == 1)
    assert len(pids) <= n_workers


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_sequence_keeps_its_order_and_ends_early(n_workers):
    sequences = [[1, 100, 2], [3, 4, 5]]
    with LocalEngine(n_workers).start(Adding, (0,), Silent()) as team:
        found = [task for task, _ in team.results(sequences, below_100)]
    assert sorted(found) == [1, 3, 4, 5, 100]
    assert [task for task in found if task in (1, 100)] == [1, 100]
    assert [task for task in found if task in (3, 4, 5)] == [3, 4, 5]
    if n_workers == 1:
        assert found == [1, 100, 3, 4, 5], "a sequence that has begun goes first"


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_error_comes_out_and_ends_it(n_workers):
    with (
        LocalEngine(n_workers).start(Adding, (0,), Silent()) as team,
        pytest.raises(ValueError, match="task -1"),
    ):
        list(team.results([[-1], *([n] for n in range(50))]))


def test_one_worker_advances_the_stage_of_its_caller():
    progress = Counting()
    with LocalEngine().start(Adding, (0,), progress) as team:
        list(team.results(independent([1, 2, 3])))
    assert progress.n == 6


def test_workers_share_the_cores():
    assert LocalEngine().n_threads == available_cores()
    assert LocalEngine(4 * available_cores()).n_threads == 1
    assert LocalEngine(2, n_threads=5).n_threads == 5


@pytest.mark.parametrize("n", [0, -1, 5000])
def test_numbers_that_make_no_sense_are_refused(n):
    with pytest.raises(InputError, match=f"workers is {n}; expected 1 to 1024"):
        LocalEngine(n)
