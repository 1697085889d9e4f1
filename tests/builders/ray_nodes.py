"""A Ray cluster whose nodes are processes of this machine, as ray.cluster_utils makes them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

from isotone.engine.progress import Silent
from isotone.engine.ray_engine import RayEngine
from isotone.engine.tasks import independent
from tests.builders.events import LONGEST_WAIT_SECONDS, wait_until

QUIET = {"include_dashboard": False}

# A killed node does not answer at all, which is noticed after five questions, in 1.5 s instead of
# 15 s; one that is only slow has 10 s for each answer, as it has by default. Workers have nice 15
# by default: on a busy machine they would hardly run.
SYSTEM = {
    "health_check_period_ms": 300,
    "health_check_initial_delay_ms": 300,
    "worker_niceness": 0,
}


@contextmanager
def started_nodes():
    """A cluster: a head without cores, and two nodes with one each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)  # for Slow
        patch.setenv("RAY_AUTH_MODE", "disabled")  # or Ray would leave a token in one's home
        cluster = Nodes(
            initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": SYSTEM, **QUIET}
        )
        for _ in range(2):
            cluster.add_node(num_cpus=1, **QUIET)
        cluster.wait_for_nodes(LONGEST_WAIT_SECONDS)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def engine(nodes):
    """The engine of the cluster `nodes`, a fixture of the test's module."""
    with RayEngine.connect(nodes.address) as connected:
        yield connected


@pytest.fixture
def doomed(nodes):
    """A third node, to be killed: what it is given takes it along."""
    node = nodes.add_node(num_cpus=1, **QUIET)
    nodes.wait_for_nodes(LONGEST_WAIT_SECONDS)

    def kill():
        nodes.remove_node(node, allow_graceful=False)

    yield SimpleNamespace(kill=kill, node_id=node.node_id)
    if node in nodes.worker_nodes:
        kill()


def start_all(team, n_workers, task):
    """Give a team tasks until so many workers have started; a task is made of its number."""

    def have_started():
        list(team.results(independent(task(n) for n in range(2 * n_workers))))
        return len(team._idle) >= n_workers

    wait_until(have_started, f"{n_workers} workers have started")


class Counting(Silent):
    """Progress that adds up, stage by stage."""

    def __init__(self):
        self.totals, self.notes = [], []

    def begin(self, what, total, unit="bytes"):  # noqa: ARG002
        self.totals.append([what, total, 0])

    def advance(self, n):
        self.totals[-1][2] += n

    def note(self, text):
        self.notes.append(text)
