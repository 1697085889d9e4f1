"""Tasks on a Ray cluster of two nodes: each is done once, whatever dies on the way."""

from __future__ import annotations

import logging
import threading

import pytest
import ray

from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.engine.progress import Silent
from isotone.engine.ray_engine import RayEngine, without_ray_reports
from isotone.engine.tasks import Needs, independent
from isotone.errors import FormatError, InputError
from tests.builders.checkpoints import weights, write_model
from tests.builders.events import LONGEST_WAIT_SECONDS, wait_until
from tests.builders.ray_nodes import QUIET, Counting, doomed, engine, start_all, started_nodes
from tests.builders.slow_worker import Hang, Slow, hanging_slow

__all__ = ["doomed", "engine"]  # fixtures


@pytest.fixture(scope="module")
def nodes():
    with started_nodes() as cluster:
        yield cluster


def test_all_nodes_work_and_every_task_is_done_once(nodes, engine):
    nodes.wait_for_nodes(LONGEST_WAIT_SECONDS)  # one that another test killed is known to be dead
    assert (engine.n_workers, engine.n_threads) == (2, 1)
    progress = Counting()
    progress.begin("starting", 0)
    with engine.start(Slow, (), progress) as team:
        start_all(team, 2, lambda n: (n, 0.0))
        progress.begin("sleeping", 16)
        found = [result for _, result in team.results(independent((n, 0.0) for n in range(8)))]
        again = [result for _, result in team.results(independent([(8, 0.0)]))]
    assert sorted(number for number, _ in found) == list(range(8))
    assert len({node for _, node in found}) == 2
    assert again[0][0] == 8, "a team can be asked again"
    assert progress.totals[-1] == ["sleeping", 16, 18]


def test_a_sequence_keeps_its_order_and_ends_early(engine):
    sequences = [[(1, 0.0), (-1, 0.0), (2, 0.0)], [(3, 0.0), (4, 0.0)]]
    with engine.start(Slow, (), Silent()) as team:
        found = [task[0] for task, _ in team.results(sequences, lambda task, _: task[0] > 0)]
    assert sorted(found) == [-1, 1, 3, 4]
    assert found.index(1) < found.index(-1)
    assert found.index(3) < found.index(4)


class KillingAt(Counting):
    """Progress that kills a node once it has counted so much, and then leaves a file."""

    def __init__(self, n, node, file):
        super().__init__()
        self.n, self.node, self.file = n, node, file

    def advance(self, n):
        super().advance(n)
        if self.totals[-1][2] == self.n and not self.file.exists():
            self.node.kill()
            self.file.touch()


def test_what_a_killed_node_was_at_is_done_elsewhere(engine, doomed, tmp_path):
    """The node is killed when it has done one task, and all of a second one has been counted."""
    killed = tmp_path / "killed"  # for which the other nodes wait before they do anything
    progress = KillingAt(2 + 2, doomed, killed)
    progress.begin("working", 20)
    hang = Hang(doomed.node_id, 1, tmp_path / "hangs", others_wait=killed)
    with engine.start(hanging_slow, (hang,), progress) as team:
        tasks = independent((n, 0.0) for n in range(10))
        found = [result for _, result in team.results(tasks)]
    assert (tmp_path / "hangs").exists()
    assert sorted(number for number, _ in found) == list(range(10))
    assert [node for _, node in found].count(doomed.node_id) == 1
    assert progress.totals == [["working", 20, 20]], "what was lost is not counted twice"


def is_dead(actor):
    try:
        ray.get(actor.do.remote((0, 0.0)), timeout=1)
    except ray.exceptions.GetTimeoutError:
        return False
    except ray.exceptions.RayError:
        return True
    return False


def test_a_task_that_kills_its_workers_is_not_tried_forever(engine):
    with (
        engine.start(Slow, (), Silent()) as team,
        pytest.raises(InputError, match="lost with its worker 4 times"),
    ):
        list(team.results(independent([(0, -1.0)])))


@pytest.mark.parametrize("needs", [Needs(memory_bytes=1 << 60), Needs(gpus=1)])
def test_what_fits_on_no_node_is_refused(needs, engine):
    with (
        pytest.raises(InputError, match="no node of the cluster has room"),
        engine.start(Slow, (), Silent(), needs),
    ):
        pass


def test_workers_go_where_their_needs_are_met(nodes, engine):
    node = nodes.add_node(num_cpus=2, num_gpus=1, **QUIET)  # Ray believes what it is told
    nodes.wait_for_nodes(LONGEST_WAIT_SECONDS)
    try:
        with engine.start(Slow, (), Silent(), Needs(memory_bytes=1 << 20, gpus=1)) as team:
            found = [result for _, result in team.results(independent((n, 0.0) for n in range(4)))]
        assert {where for _, where in found} == {node.node_id}
    finally:
        nodes.remove_node(node)


def test_more_workers_than_there_is_room_for_wait(nodes):
    with (
        RayEngine.connect(nodes.address, n_workers=5) as engine,
        engine.start(Slow, (), Silent()) as team,
    ):
        found = [result for _, result in team.results(independent((n, 0.0) for n in range(5)))]
    assert len(found) == 5


def test_waiting_for_a_node_is_said(engine, monkeypatch):
    monkeypatch.setattr("isotone.engine.ray_team.PATIENCE_SECONDS", -1.0)
    progress = Counting()
    progress.begin("waiting", 2)
    with engine.start(Slow, (), progress) as team:
        list(team.results(independent([(0, 0.0)])))
    assert set(progress.notes) == {"waiting for a node with 1 cores"}


def test_a_node_with_another_isotone_is_refused(engine, monkeypatch):
    monkeypatch.setattr("isotone.engine.ray_engine.version", lambda _: "0.0.1")
    with (
        engine.start(Slow, (), Silent()) as team,
        pytest.raises(InputError, match=r"and 0\.0\.1 where the command was started.*on node"),
    ):
        list(team.results(independent([(0, 0.0)])))


def test_a_model_that_a_node_does_not_see_as_the_driver_did(engine, tmp_path):
    opened = ModelDirectory(write_model(tmp_path / "model", {"a": weights(9, 9)}))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    with (
        engine.start(Slow, (opened,), Silent()) as team,
        pytest.raises(FormatError, match=r"changed while it was read.*on node"),
    ):
        list(team.results(independent([(0, 0.0)])))


def test_what_rays_own_threads_print_goes_to_the_log(capsys, caplog):
    with caplog.at_level(logging.INFO), without_ray_reports():
        thread = threading.Thread(target=print, args=["a node died"], name="ray_listen_to_errors")
        thread.start()
        thread.join()
        print("said by somebody else")
    print("after")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("after\n", "said by somebody else\n")
    assert caplog.messages == ["a node died"]


def test_the_thread_that_prints_rays_reports_is_known_by_its_name(engine):  # noqa: ARG001
    assert "ray_listen_error_messages" in [thread.name for thread in threading.enumerate()]


def test_idle_workers_that_died_with_their_node_are_no_failure_of_a_task(nodes, engine):
    node = nodes.add_node(num_cpus=6, **QUIET)
    nodes.wait_for_nodes(LONGEST_WAIT_SECONDS)
    with engine.start(Slow, (), Silent()) as team:
        start_all(team, 8, lambda n: (n, 0.0))
        place = {id(a): ray.get(a.do.remote((0, 0.0))).result[1] for a in team._idle}
        team._idle.sort(key=lambda a: place[id(a)] == node.node_id)  # those are asked first
        lost = [actor for actor in team._idle if place[id(actor)] == node.node_id]
        nodes.remove_node(node, allow_graceful=False)
        wait_until(
            lambda: all(map(is_dead, lost)), "the workers are dead"
        )  # they outlive their node
        again = [result for _, result in team.results(independent([(24, 0.0)]))]
    assert again[0][0] == 24
