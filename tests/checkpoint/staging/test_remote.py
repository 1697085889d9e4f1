"""Results in an object store: whole or not at all, resumed, and nobody else's objects touched."""

from __future__ import annotations

import functools
import pickle
from importlib import import_module

import pytest

from isotone.checkpoint.staging.open import open_staging
from isotone.checkpoint.staging.scratch import new_scratch
from isotone.errors import FormatError, InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan.shards import plan_shards
from tests.builders.checkpoints import CONFIG, Bf16, tree, weights, write_model
from tests.builders.object_store import server, store
from tests.builders.overlays import every_overlay, write

__all__ = ["server", "store"]  # fixtures


@pytest.fixture
def source(tmp_path):
    tensors = {f"{name}.weight": Bf16(weights(40, 40, seed=ord(name))) for name in "abcd"}
    tensors["norm"] = weights(40)
    companions = {"tokenizer.json": b"{}"}
    return write_model(tmp_path / "model", tensors, config=CONFIG, companions=companions)


@pytest.fixture
def one_shard_each(monkeypatch):
    """Every matrix in a shard of its own."""
    small = functools.partial(plan_shards, shard_bytes=4_000)
    monkeypatch.setattr(import_module("isotone.plan.job"), "plan_shards", small)


def test_a_result_in_the_store_has_the_same_bytes(store, model, compressed):
    compress(model, f"{store.url}/out", k=6)
    assert store.tree() == {f"out/{name}": data for name, data in tree(compressed).items()}


@pytest.mark.usefixtures("one_shard_each")
def test_every_command_reads_what_compress_wrote_there(store, source, tmp_path, isotone):
    url, out = store.put(source, "model"), f"{store.url}/deep/out"
    made = isotone("compress", url, out, "--json")
    assert (made.code, made.json["n_tensors"]) == (0, 4)
    assert made.json["output_bytes"] == sum(map(len, store.tree("deep/out").values()))
    verified = isotone("verify", out, "--against", url, "--json")
    assert verified.json == {"ok": True, "failures": [], "n_tensors": 5, "n_files": 7}
    assert len(isotone("inspect", out, "--json").json["tensors"]) == 4
    assert isotone("inspect", out, "--tensor", "a", "--json").json["name"] == "a.weight"
    for dense in (tmp_path / "dense", f"{store.url}/dense"):
        assert isotone("decompress", out, dense, "--json").code == 0
    assert store.tree("dense") == tree(tmp_path / "dense")
    assert not [name for name in store.tree() if ".partial/" in name]


def test_an_object_that_is_gone_is_found(store, source, isotone):
    out = f"{store.url}/out"
    compress(source, out)
    store.client.rm(f"{out}/tokenizer.json")
    run = isotone("verify", out, "--json")
    assert run.code == 1
    assert run.json["failures"][0].startswith(f"{out}/tokenizer.json: cannot be read: ")


@pytest.mark.parametrize("flipped", ["model.safetensors", "isotone.json", "tokenizer.json"])
def test_a_changed_byte_in_the_store_is_found(flipped, store, source, isotone):
    out = f"{store.url}/out"
    compress(source, out)
    content = bytearray(store.tree("out")[flipped])
    content[len(content) // 2] ^= 1
    store.client.pipe(f"{out}/{flipped}", bytes(content))
    assert isotone("verify", out).code == 1


class RunInterruptedError(Exception):
    """What stops a run in these tests."""


def failing_at(n, monkeypatch, error):
    """The n-th change of the store from now on, counted from 0, is not made; returns the others."""
    import s3fs

    proceed, made = s3fs.S3FileSystem._call_s3, []

    async def interrupted(self, method, *others, **named):
        if method.split("_")[0] in ("put", "copy", "delete", "complete"):
            if len(made) == n:
                raise error
            made.append(method)
        return await proceed(self, method, *others, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", interrupted)
    return made


def small_job(out, version, *, overwrite):
    """A result of two parts and three small files, each of which tells its version."""
    with open_staging(out, {"version": version}, overwrite=overwrite) as staging:
        for name in ("a.safetensors", "b.safetensors"):
            if staging.record(name) is None:
                scratch = staging.scratch(name)
                with scratch.writing() as path:
                    path.write_text(f"{name}, version {version}")
                staging.finish(name, scratch, {})
        for name in ("config.json", "isotone.json", "tokenizer.json"):
            staging.write(name, f"{name}, version {version}".encode())
        staging.publish()


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_before_each_change_of_the_store(overwrite, store, monkeypatch):
    """What lies at OUT is nothing, or whole; started again, the run ends as an undisturbed one."""
    old = {}
    small_job(f"{store.url}/undisturbed", 2, overwrite=False)
    expected = store.tree("undisturbed")
    if overwrite:
        small_job(f"{store.url}/old", 1, overwrite=False)
        old = store.tree("old") | {"old.txt": b"of another time"}
    for n in range(100):
        name, out = f"out{n}", f"{store.url}/out{n}"
        for file, content in old.items():
            store.client.pipe(f"{out}/{file}", content)
        with monkeypatch.context() as patch:
            made = failing_at(n, patch, RunInterruptedError())
            try:
                small_job(out, 2, overwrite=overwrite)
            except (InputError, RunInterruptedError):
                pass
            else:
                break
        found, left = store.tree(name), store.tree(f"{name}.partial")
        assert "isotone.json" not in found or found in (old, expected), f"after {made}"
        if overwrite or found != expected or ".publishing" in left:
            small_job(out, 2, overwrite=overwrite)
            assert not store.tree(f"{name}.partial")
        assert store.tree(name) == expected, f"after {made}"
    assert n > 15
    assert store.tree(name) == expected


@pytest.mark.usefixtures("one_shard_each")
def test_finished_shards_are_not_made_again(store, source, monkeypatch):
    stage = import_module("isotone.pipeline.write.shards")
    proceed, made = stage.compress_shard, []

    def counted(source, shard, *others):
        if len(made) == 2:
            made.append(None)
            raise RunInterruptedError
        made.append(shard.name)
        return proceed(source, shard, *others)

    monkeypatch.setattr(stage, "compress_shard", counted)
    with pytest.raises(RunInterruptedError):
        compress(source, f"{store.url}/out")
    assert not store.tree("out")
    compress(source, f"{store.url}/out")
    assert len({*made} - {None}) == len(made) - 1 == 4
    compress(source, f"{store.url}/other")
    assert store.tree("out") == store.tree("other")
    assert verify(f"{store.url}/out", against=source).ok


def test_what_is_there_is_replaced_only_where_isotone_wrote_it(store, source):
    out = f"{store.url}/out"
    compress(source, out, k=4)
    with pytest.raises(InputError, match="out: exists; choose another OUT, or give --overwrite"):
        compress(source, out)
    before = store.tree("out")
    compress(source, out, overwrite=True)
    assert store.tree("out") != before
    for name in ("mine", "other.partial"):
        store.client.pipe(f"{store.url}/{name}/model.safetensors", b"mine")
        with pytest.raises(InputError, match=f"{name}: .*was not written by isotone"):
            compress(source, f"{store.url}/{name.removesuffix('.partial')}", overwrite=True)
        assert store.tree(name) == {"model.safetensors": b"mine"}


def test_another_job_is_not_mixed_in(store, source):
    out = f"{store.url}/out"
    with open_staging(out, {"another": "job"}, overwrite=False):
        pass
    with pytest.raises(InputError, match="unfinished work from another source"):
        compress(source, out)
    compress(source, out, overwrite=True)
    assert verify(out, against=source).ok


def test_of_two_runs_the_later_goes_on(store):
    out, job = f"{store.url}/out", {"the same": "job"}
    with open_staging(out, job, overwrite=False) as first:
        mine, late = first.scratch("a"), first.scratch("b")
        for scratch in (mine, late):
            with scratch.writing() as path:
                path.write_bytes(b"part")
        first.finish("a", mine, {"n": 1})
        with open_staging(out, job, overwrite=False) as second:
            for stopped in (lambda: first.finish("b", late, {}), first.publish):
                with pytest.raises(InputError, match=r"another isotone was started .* this one"):
                    stopped()
            assert second.record("a") == {"n": 1}
            assert second.record("b") is None
            second.publish()
    assert store.tree() == {"out/.isotone": b"", "out/a": b"part"}


def test_another_job_does_not_stop_the_one_that_runs(store):
    out = f"{store.url}/out"
    with open_staging(out, {"a": "job"}, overwrite=False) as running:
        with pytest.raises(InputError), open_staging(out, {"b": "job"}, overwrite=False):
            pass
        running.publish()


def test_an_attempt_is_uploaded_whole_or_not_at_all(store, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_staging(f"{store.url}/out", {}, overwrite=False) as staging:
        before = store.tree()
        scratch = pickle.loads(pickle.dumps(new_scratch(staging.directory, "part")))
        with (
            pytest.raises(FileNotFoundError),
            scratch.writing() as path,
            path.open("wb") as file,
        ):
            file.write((tmp_path / "nowhere").read_bytes())
        assert store.tree() == before
        with scratch.writing() as path:
            path.write_bytes(b"the whole")
        staging.finish("part", scratch, {})
        assert staging.part("part").read_bytes() == b"the whole"
    assert not list(tmp_path.iterdir())


def test_what_a_lost_worker_uploads_late_is_in_nobodys_way(store, source):
    with open_staging(f"{store.url}/out", {}, overwrite=False) as staging:
        late = staging.scratch("part")
        staging.discard()
    with late.writing() as path:
        path.write_bytes(b"late")
    compress(source, f"{store.url}/out")
    assert not store.tree("out.partial")


def test_a_part_whose_upload_is_gone_is_not_finished(store):
    with open_staging(f"{store.url}/out", {}, overwrite=False) as staging:
        scratch = staging.scratch("part")
        with scratch.writing() as path:
            path.write_bytes(b"part")
        staging.finish("part", scratch, {})
        store.client.rm(str(scratch.path))
        assert staging.record("part") is None


def test_what_cannot_be_written_is_one_line(store, source, isotone, monkeypatch):
    for out, said in {
        "s3://no-such-bucket/out": "cannot be written: The specified bucket does not exist",
        store.url: "is a whole store or bucket",
    }.items():
        run = isotone("compress", source, out)
        assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
        assert said in run.err

    failing_at(4, monkeypatch, PermissionError("Access Denied"))
    run = isotone("compress", source, f"{store.url}/out")
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
    assert "cannot be written: Access Denied; nothing was published" in run.err
    assert not store.tree("out")


def test_inside_the_model_is_refused(store, source):
    url = store.put(source, "model")
    with pytest.raises(InputError, match="is the model itself or lies in it"):
        compress(url, f"{url}/out")


def test_calibrating_into_the_store_is_refused(store, source, tmp_path):
    with pytest.raises(InputError, match="statistics cannot be collected in a store"):
        compress(source, f"{store.url}/out", calibrate="self")
    url = store.put(source, "model")
    with pytest.raises(InputError, match="expected a model directory on this machine"):
        compress(url, tmp_path / "out", calibrate="self")
    assert list(store.tree("out.partial")) == []


def test_changed_codebooks_in_the_store_are_refused(store, source, tmp_path):
    compress(source, tmp_path / "base")
    write(tmp_path / "base", tmp_path / "changed", every_overlay(tmp_path / "base"))
    url = store.put(tmp_path / "changed", "changed")
    assert verify(url).failures[0].startswith(f"{url}: holds only changed codebooks")
    with pytest.raises(FormatError, match="fetch it and its base first"):
        decompress(url, tmp_path / "dense")
