"""A method that another package registers is found by name, and compresses whole models."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from isotone.core.clustering import method as methods
from isotone.core.clustering.method import Assigned, register_method
from isotone.core.clustering.solver import nearest
from isotone.errors import InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import Bf16, tree, weights, write_model


@dataclass(frozen=True)
class EvenlySpaced:
    """As many evenly spaced centroids as asked for; with λ, a spacing that follows from it."""

    k: int
    lambda_: float | None

    def assign(self, histogram, _rate, unit=None, split=None):  # noqa: ARG002
        low, high = histogram.values[0], histogram.values[-1]
        k = self.k
        if self.lambda_ is not None:
            width = np.sqrt(12 * self.lambda_ * histogram.bulk_mean_square)
            k = int(np.clip((high - low) / width, 2, self.k))
        codebook = np.linspace(low, high, k).astype(np.float32)
        ranks = nearest(codebook, histogram.values)
        return Assigned(histogram, codebook, ranks, np.zeros(len(histogram), np.bool_))


@pytest.fixture
def registered(monkeypatch):
    """Registers the method under the name `even`, for one test."""
    monkeypatch.setattr(methods, "_FACTORIES", dict(methods._FACTORIES))
    register_method("even")(lambda settings: EvenlySpaced(settings.k, settings.lambda_))


@pytest.fixture
def model(tmp_path):
    tensors = {f"{name}.weight": Bf16(weights(300, 200, seed=i)) for i, name in enumerate("abc")}
    return write_model(tmp_path / "model", tensors | {"norm": weights(200)})


def manifest_of(directory):
    return json.loads((directory / "isotone.json").read_text())


@pytest.mark.usefixtures("registered")
def test_its_codebooks_are_what_is_written_whatever_the_workers(model, tmp_path):
    for workers in (1, 2):
        out = tmp_path / str(workers)
        compress(model, out, k=9, method="even", scale="none", workers=workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    assert verify(tmp_path / "1", against=model, workers=2).ok
    stored = second_reader.read_safetensors(tmp_path / "1" / "model.safetensors")
    for name in "abc":
        codebook = stored[f"{name}.weight_codebook"][1]
        assert len(codebook) == 9
        np.testing.assert_allclose(np.diff(codebook), np.diff(codebook)[0], rtol=1e-5)
    assert manifest_of(tmp_path / "1")["arguments"]["method"] == "even"


@pytest.mark.usefixtures("registered")
def test_a_size_is_searched_for_by_its_lambda(model, tmp_path):
    summary = compress(model, tmp_path / "out", bits=3.5, method="even", workers=2)
    # The number of centroids is whole, so that sizes come in steps.
    assert summary.bits_per_weight == pytest.approx(3.5, abs=0.1)


@pytest.mark.usefixtures("registered")
def test_rules_for_some_tensors_reach_it(model, tmp_path):
    compress(model, tmp_path / "out", k=9, method="even", settings=["b:k=5"])
    found = {each["name"]: each["k"] for each in manifest_of(tmp_path / "out")["clustered"]}
    assert found == {"a.weight": 9, "b.weight": 5, "c.weight": 9}


@pytest.mark.usefixtures("registered")
def test_work_of_another_method_is_another_job(model, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("isotone.pipeline.write.shards.compress_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            compress(model, tmp_path / "out", k=9, method="even")
    with pytest.raises(InputError, match="unfinished work"):
        compress(model, tmp_path / "out", k=9)


@pytest.mark.usefixtures("registered")
def test_the_command_line_takes_its_name(model, tmp_path, isotone):
    run = isotone("compress", model, tmp_path / "out", "--method", "even", "--k", 7, "--json")
    assert (run.code, run.err) == (0, "")
    assert {each["k"] for each in manifest_of(tmp_path / "out")["clustered"]} == {7}


def test_a_name_that_nobody_registered_is_refused_before_any_work(model, tmp_path):
    with pytest.raises(InputError, match="method is 'even'; expected one of entropy, kmeans"):
        compress(model, tmp_path / "out", method="even")
    assert not (tmp_path / "out").exists()
