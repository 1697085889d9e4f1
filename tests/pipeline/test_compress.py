"""Compressing whole checkpoints: what is clustered, what is kept, and that all figures are true."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from blake3 import blake3
from safetensors import numpy as library

from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import CLUSTERED, CONFIG, Bf16, one_of_each, safetensors_bytes, tree


def manifest_of(directory):
    return json.loads((directory / "isotone.json").read_text())


def records_of(directory, kind="clustered"):
    return {record["name"]: record for record in manifest_of(directory)[kind]}


def test_matrices_are_clustered_and_the_rest_is_kept(compressed):
    clustered = records_of(compressed)
    assert {name: record["n_matrices"] for name, record in clustered.items()} == CLUSTERED
    reasons = {name: record["reason"] for name, record in records_of(compressed, "kept").items()}
    assert reasons == {
        "norm.weight": "not a matrix",
        "input_layernorm.weight": "norm",
        "mix.0.up.bias": "bias",
        "row.weight": "not a matrix",
        "double.weight": "dtype F64",
        "positions": "dtype I64",
        "mask": "dtype BOOL",
        "small.weight": "too small to gain",
        "step": "dtype I64",
        "nothing": "not a matrix",
    }


def test_what_is_kept_is_the_same_bit_for_bit(compressed):
    source = one_of_each()
    stored = second_reader.read_safetensors(compressed / "model.safetensors")
    for name, record in records_of(compressed, "kept").items():
        array = getattr(source[name], "patterns", source[name])
        assert stored[name][1].tobytes() == array.tobytes()
        assert stored[name][1].shape == array.shape == tuple(record["shape"])
        assert record["source_hash"] == blake3(array.tobytes()).hexdigest()


def test_companions_go_along_and_the_config_is_only_added_to(compressed, model):
    for name in ("tokenizer.json", "LICENSE", "modeling.py"):
        assert (compressed / name).read_bytes() == (model / name).read_bytes()
    config = json.loads((compressed / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "isotone"
    assert config["quantization_config"]["format_version"] == 2
    assert {key: config[key] for key in CONFIG} == CONFIG
    recorded = {record["name"]: record for record in manifest_of(compressed)["files"]}
    others = tree(compressed).keys() - {"isotone.json", ".isotone"}
    assert recorded.keys() == others
    for name in others:
        content = (compressed / name).read_bytes()
        assert recorded[name]["hash"] == blake3(content).hexdigest()
        assert recorded[name]["n_bytes"] == len(content)


def test_a_second_reader_library_and_decompress_agree(compressed, tmp_path):
    decompress(compressed, tmp_path / "dense")
    by_specification = second_reader.read_directory(compressed)
    by_isotone = second_reader.read_safetensors(tmp_path / "dense" / "model.safetensors")
    assert by_specification.keys() == by_isotone.keys() == one_of_each().keys()
    for name, (tag, array) in by_specification.items():
        assert by_isotone[name][0] == tag
        assert by_isotone[name][1].shape == array.shape
        assert by_isotone[name][1].tobytes() == array.tobytes()
    assert json.loads((tmp_path / "dense" / "config.json").read_text()) == CONFIG
    assert not (tmp_path / "dense" / "isotone.json").exists()


def test_recorded_figures_are_those_of_the_file(compressed):
    source = one_of_each()
    stored = second_reader.read_safetensors(compressed / "model.safetensors")
    dense = second_reader.read_directory(compressed)
    for name, record in records_of(compressed).items():
        arrays = {key: a for key, (_, a) in stored.items() if key.startswith(name + "_")}
        assert record["stored_bytes"] == sum(array.nbytes for array in arrays.values())
        before = source[name]
        raw = before.patterns if isinstance(before, Bf16) else before
        assert record["source_hash"] == blake3(raw.tobytes()).hexdigest()
        assert record["decoded_hash"] == blake3(dense[name][1].tobytes()).hexdigest()
        before = np.float64(before.values if isinstance(before, Bf16) else before)
        after = dense[name][1]
        after = (after.astype("<u4") << 16).view("<f4") if record["dtype"] == "BF16" else after
        # All of these are float64 sums over a few thousand weights, here and there.
        error = np.square(before - after.astype(np.float64)).sum()
        matrices = before.reshape(record["n_matrices"], -1)
        squares = np.square(matrices - matrices.mean(1, keepdims=True)).sum()
        assert record["distortion"] == pytest.approx(error, rel=1e-9)
        assert record["relative_distortion"] == pytest.approx(error / squares, rel=1e-9)
        assert record["mean"] == pytest.approx(before.mean(), abs=1e-12)
        assert record["standard_deviation"] == pytest.approx(before.std(), rel=1e-9)
        ranks = second_reader.unpack(arrays[name + "_packed"].tobytes())[3]
        entropy = 0.0
        for matrix in ranks:
            shares = np.bincount(matrix) / matrix.size
            entropy -= matrix.size * sum(s * math.log2(s) for s in shares if s)
        assert record["entropy_bits"] == pytest.approx(entropy / ranks.size, rel=1e-9)
        assert record["n_protected"] == len(arrays.get(name + "_protected_value", ()))
        assert record["k"] == arrays[name + "_codebook"].shape[-1] == 6
        scales = [suffix for suffix in ("_row_scale", "_column_scale") if name + suffix in arrays]
        assert record["scale"] == ("none", "row", "both")[len(scales)]
        assert record["optimality_gap"] == 0.0


def test_the_summary_adds_up(compressed, model, isotone, tmp_path):
    run = isotone("compress", model, tmp_path / "out", "--k", 6, "--json")
    assert (run.code, run.err) == (0, "")
    summary, records = run.json, records_of(compressed).values()
    n_weights = sum(math.prod(record["shape"]) for record in records)
    widths = {"BF16": 2, "F16": 2, "F32": 4}
    dense = sum(widths[record["dtype"]] * math.prod(record["shape"]) for record in records)
    kept = sum(len(getattr(a, "patterns", a).tobytes()) for a in one_of_each().values()) - dense
    assert summary["n_weights"] == n_weights
    assert summary["n_tensors"] == len(CLUSTERED)
    assert summary["n_kept"] == len(one_of_each()) - len(CLUSTERED)
    assert summary["bits_per_weight"] == 8 * sum(r["stored_bytes"] for r in records) / n_weights
    assert summary["coverage"] == dense / (dense + kept)
    squares = sum(r["distortion"] / r["relative_distortion"] for r in records)
    distortion = sum(r["distortion"] for r in records)
    assert summary["relative_distortion"] == pytest.approx(distortion / squares, rel=1e-12)
    shards = model.glob("*.safetensors")
    assert summary["source_bytes"] == sum(path.stat().st_size for path in shards)
    assert summary["output_bytes"] == sum(len(content) for content in tree(compressed).values())
    assert summary["seconds"] > 0
    assert summary["peak_rss_bytes"] > 1 << 20
    table = isotone("compress", model, tmp_path / "again", "--k", 6)
    assert table.code == 0
    assert f"{n_weights:,}, {dense / (dense + kept):.2%} of the model" in table.out


SCRIPT = """
import sys
from isotone.pipeline.compress import compress
compress(sys.argv[1], sys.argv[2], k=6, workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize(("workers", "hash_seed"), [(1, "0"), (3, "1234")])
def test_bytes_do_not_depend_on_workers_or_hash_seed(
    workers, hash_seed, compressed, model, tmp_path
):
    subprocess.run(
        [sys.executable, "-c", SCRIPT, model, tmp_path / "out", str(workers)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert tree(tmp_path / "out") == tree(compressed)


def test_bytes_do_not_depend_on_workers_where_tensors_are_cut_into_pieces(
    model, tmp_path, monkeypatch
):
    # Pieces of a few chunks, so that tensors of this size have many of both.
    stage = import_module("isotone.pipeline.write.shard")
    packed = import_module("isotone.codec.packed")
    matrix = import_module("isotone.pipeline.allocate.planned_matrix")
    for module in (stage, packed):
        monkeypatch.setattr(module, "CHUNK_WEIGHTS", 256)
    monkeypatch.setattr(packed.PackedLayout.__init__, "__defaults__", (256,))
    for module in (stage, matrix):
        monkeypatch.setattr(module, "PIECE_WEIGHTS", 1024)
    for workers in (1, 2, 3, 16):
        compress(model, tmp_path / str(workers), k=6, workers=workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2") == tree(tmp_path / "3")
    assert tree(tmp_path / "1") == tree(tmp_path / "16")
    assert verify(tmp_path / "1", against=model, workers=2).ok
    dense = second_reader.read_directory(tmp_path / "1")
    decompress(tmp_path / "1", tmp_path / "dense", workers=2)
    found = second_reader.read_safetensors(tmp_path / "dense" / "model.safetensors")
    assert all(found[name][1].tobytes() == array.tobytes() for name, (_, array) in dense.items())


def test_a_single_file_needs_no_directory(tmp_path, isotone):
    path = tmp_path / "lone.safetensors"
    path.write_bytes(safetensors_bytes(one_of_each()))
    run = isotone("compress", path, tmp_path / "out", "--json")
    assert run.json["n_tensors"] == len(CLUSTERED)
    assert verify(tmp_path / "out", against=path).ok
    run = isotone("decompress", tmp_path / "out", tmp_path / "dense", "--json")
    assert run.json["output_bytes"] == sum(len(c) for c in tree(tmp_path / "dense").values())
    # The safetensors library reads what comes back; its NumPy side has no bfloat16.
    without_bf16 = {n: a for n, a in one_of_each().items() if not isinstance(a, Bf16)}
    path.write_bytes(safetensors_bytes(without_bf16))
    compress(path, tmp_path / "b")
    decompress(tmp_path / "b", tmp_path / "c")
    loaded = library.load_file(tmp_path / "c" / "model.safetensors")
    assert {n: a.shape for n, a in loaded.items()} == {n: a.shape for n, a in without_bf16.items()}
