"""Commands on a Ray cluster of two nodes: the same bytes and records, whatever dies on the way."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from importlib import import_module

import numpy as np
import pytest

from isotone.checkpoint.staging.local import LocalStaging
from isotone.checkpoint.staging.remote import RemoteStaging
from isotone.errors import InputError
from isotone.evaluation.frontier.results import POINTS_FILE
from isotone.evaluation.frontier.sweep import frontier
from isotone.evaluation.frontier.variants import frontier_variants
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan.shards import plan_shards
from isotone.study.plan import parse_plan
from isotone.study.run import RUNS_FILE, run_study
from tests.builders.checkpoints import CONFIG, Bf16, tree, weights, write_model
from tests.builders.dying_driver import SHARD_BYTES, killed_after
from tests.builders.object_store import server, store
from tests.builders.ray_nodes import Counting, doomed, engine, started_nodes
from tests.builders.slow_worker import Hang, hanging_shard_work

planning = import_module("isotone.plan.job")
shards = import_module("isotone.pipeline.write.shards")

__all__ = ["doomed", "engine", "server", "store"]  # fixtures


@pytest.fixture(scope="module")
def nodes(server):  # noqa: ARG001 (which nodes find by their environment)
    with started_nodes() as cluster:
        yield cluster


# -- compressing ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight matrices, eight shards."""
    tensors = {f"{n}.weight": Bf16(weights(700, 700, seed=i)) for i, n in enumerate("abcdefgh")}
    tensors["norm"] = weights(700)
    return write_model(tmp_path_factory.mktemp("source") / "model", tensors, config=CONFIG)


@pytest.fixture(autouse=True)
def a_shard_for_each_matrix(monkeypatch):
    small = functools.partial(plan_shards, shard_bytes=SHARD_BYTES)
    monkeypatch.setattr(planning, "plan_shards", small)


OPTIONS = {"kmeans": {"k": 16}, "entropy": {"bits": 3.5}}


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    """Made on this machine, by method."""
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            planning, "plan_shards", functools.partial(plan_shards, shard_bytes=SHARD_BYTES)
        )
        for name, options in OPTIONS.items():
            compress(source, root / name, **options)
    return root


@pytest.mark.parametrize("method", OPTIONS)
def test_the_same_bytes_as_on_one_machine(method, source, undisturbed, engine, tmp_path):
    progress, out = Counting(), tmp_path / "out"
    compress(source, out, engine=engine, progress=progress, **OPTIONS[method])
    assert tree(out) == tree(undisturbed / method)
    assert all(total == done for _, total, done in progress.totals)
    assert verify(out, against=source, engine=engine).ok
    decompress(out, tmp_path / "dense", engine=engine)
    decompress(out, tmp_path / "here")
    assert tree(tmp_path / "dense") == tree(tmp_path / "here")


def test_verifying_finds_the_same_as_on_one_machine(undisturbed, engine, tmp_path):
    out = shutil.copytree(undisturbed / "kmeans", tmp_path / "out")
    shard = out / "model-00003-of-00008.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5000] ^= 1
    shard.write_bytes(content)
    found = verify(out, engine=engine)
    assert found == verify(out)
    assert not found.ok


def test_an_error_names_the_tensor_and_the_node(engine, tmp_path):
    tensors = {"a.weight": Bf16(weights(700, 700)), "b.weight": Bf16(np.full((700, 700), np.nan))}
    model = write_model(tmp_path / "model", tensors, config=CONFIG)
    with pytest.raises(InputError, match=r"b\.weight: .*are NaN.*\(on node .+\)"):
        compress(model, tmp_path / "out", engine=engine)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def killed_at_work(doomed, tmp_path, monkeypatch):
    """Kills a node when two shards are finished and its worker has written one that is not.

    Given how shards are finished, returns the names of those that are.
    """
    hangs = tmp_path / "hangs"
    hang = Hang(doomed.node_id, 0, hangs, others_wait=hangs)
    monkeypatch.setattr(shards, "ShardWork", functools.partial(hanging_shard_work, hang))

    def prepared(staging):
        finish, done = staging.finish, []

        def then_kill(self, *arguments):
            finish(self, *arguments)
            done.append(arguments[0])
            if len(done) == 2:
                assert hangs.exists()
                doomed.kill()

        monkeypatch.setattr(staging, "finish", then_kill)
        return done

    return prepared


def test_a_node_killed_in_the_middle(source, undisturbed, engine, killed_at_work, tmp_path):
    done = killed_at_work(LocalStaging)
    compress(source, tmp_path / "out", engine=engine, k=16)
    assert len(done) == len(set(done)) == 8, "published once each"
    assert tree(tmp_path / "out") == tree(undisturbed / "kmeans")
    assert verify(tmp_path / "out", against=source).ok


def test_a_node_killed_in_the_middle_of_work_on_an_object_store(
    source, undisturbed, engine, killed_at_work, store
):
    done = killed_at_work(RemoteStaging)
    model, out = store.put(source, "model"), f"{store.url}/out"
    compress(model, out, engine=engine, k=16)
    assert len(done) == len(set(done)) == 8
    assert store.tree("out") == tree(undisturbed / "kmeans")
    assert verify(out, against=model, engine=engine).ok


def test_the_driver_killed_in_the_middle(source, undisturbed, nodes, isotone, tmp_path):
    out = tmp_path / "out"
    given = ["compress", source, out, "--engine", "ray", "--address", nodes.address]
    assert killed_after(2, *given)
    assert not out.exists()
    assert len(list(out.with_name("out.partial").glob(".model*.json"))) == 2
    run = isotone(*given, "--json")
    assert (run.code, run.err, run.json["n_tensors"]) == (0, "", 8)
    assert tree(out) == tree(undisturbed / "kmeans")
    assert verify(out, against=source).ok


# -- calibrating, studying, sweeping --------------------------------------------------------------


def test_calibrated_bytes_are_the_same(engine, language_models, tmp_path):
    options = {"bits": 4.0, "calibrate": str(language_models.text)}
    compress(language_models.dense, tmp_path / "here", **options)
    compress(language_models.dense, tmp_path / "there", engine=engine, **options)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


PLAN = """
[clustering]
k = [5, 8]
[evaluation]
context = 24
windows = 2
[[grid]]
name = "layers"
protocol = "layer"
edits = ["sorted_normal", "permute"]
corrections = ["moments", "none"]
[[grid]]
name = "more"
protocol = "progressive"
edits = ["gaussian_noise"]
orders = ["first"]
until = 2
"""


def lines(path):
    """Records without times, in an order of their own."""
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return sorted(json.dumps({**record, "seconds": 0}, sort_keys=True) for record in found)


def test_a_study_gives_the_records_of_a_local_one(nodes, language_models, isotone, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    models = language_models
    plan = parse_plan(PLAN, "plan", "plan.toml")
    run_study(plan, tmp_path / "here", workers=2, model=models.dense, text=models.text)
    options = ["--model", models.dense, "--text", models.text, "--json"]
    options += ["--engine", "ray", "--address", nodes.address]
    run = isotone("study", "run", tmp_path / "plan.toml", tmp_path / "there", *options)
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("{")
    assert run.json["n_done"] + run.json["n_skipped"] == run.json["n_total"] == 2 * (2 * 4 + 2)
    assert lines(tmp_path / "there" / RUNS_FILE) == lines(tmp_path / "here" / RUNS_FILE)


def test_a_sweep_gives_the_points_of_a_local_one(engine, language_models, tmp_path):
    text = language_models.text
    # The manifests name their statistics, whose paths are of one length.
    options = {"variants": frontier_variants([3.5, 4.5], [16], calibrate=str(text)), "context": 24}
    options["windows"] = 2
    frontier(language_models.dense, tmp_path / "one", text, **options)
    frontier(language_models.dense, tmp_path / "two", text, engine=engine, **options)
    assert lines(tmp_path / "two" / POINTS_FILE) == lines(tmp_path / "one" / POINTS_FILE)


# -- the command line -----------------------------------------------------------------------------


def test_the_commands_say_the_same(isotone, nodes, source, undisturbed, tmp_path):
    there = ["--engine", "ray", "--address", nodes.address, "--workers", "2", "--json"]
    run = isotone("compress", source, tmp_path / "out", *there)
    assert (run.code, run.err, run.json["n_tensors"]) == (0, "", 8)
    assert tree(tmp_path / "out") == tree(undisturbed / "kmeans")
    run = isotone("verify", tmp_path / "out", "--against", source, *there)
    assert (run.code, run.json["ok"]) == (0, True)
    run = isotone("decompress", tmp_path / "out", tmp_path / "dense", *there)
    assert (run.code, run.err) == (0, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "dask"], "engine is 'dask'; expected local or ray"),
        (["--address", "here:1"], "--address is here:1, and the engine is local"),
        (["--cores", "2"], "--cores is 2, and the engine is local"),
        (["--engine", "ray", "--workers", "0"], "workers is 0; expected 1 to 1024"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster answers there"),
    ],
)
def test_options_that_cannot_be(options, said, isotone, source, tmp_path):
    run = isotone("compress", source, tmp_path / "out", *options)
    assert run.code == 2
    assert said in " ".join(run.err.split())
    assert not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(isotone, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    run = isotone("compress", source, tmp_path / "out", "--engine", "ray")
    assert run.code == 2
    assert "isotone[ray]" in run.err
