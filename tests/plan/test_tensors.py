"""Which tensors are clustered: by globs, names, shapes and stacks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.errors import InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan.tensors import n_matrices, reason_to_keep
from tests.builders.checkpoints import (
    CLUSTERED,
    safetensors_bytes,
    tree,
    weights,
)


def records_of(directory, kind="clustered"):
    manifest = json.loads((directory / "isotone.json").read_text())
    return {record["name"]: record for record in manifest[kind]}


@pytest.mark.parametrize(
    ("options", "clustered"),
    [
        ({"include": ["mix.0.*"]}, {"mix.0.up.weight", "mix.0.down.weight"}),
        ({"include": ["*.up", "embed"]}, {"embed.weight", "mix.0.up.weight", "mix.1.up.weight"}),
        ({"include": ["mix.*"], "exclude": ["*.up.weight", "*experts*"]}, {"mix.0.down.weight"}),
        ({"exclude": ["m*", "*conv*"]}, {"embed.weight"}),
    ],
)
def test_include_and_exclude(options, clustered, model, tmp_path):
    compress(model, tmp_path / "out", k=4, **options)
    assert records_of(tmp_path / "out").keys() == clustered
    left_out = {
        name
        for name, record in records_of(tmp_path / "out", "kept").items()
        if record["reason"] == "excluded"
    }
    assert left_out - {"small.weight"} == CLUSTERED.keys() - clustered
    assert verify(tmp_path / "out", against=model).ok


@pytest.mark.parametrize(
    ("name", "shape", "height"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj", (8, 64, 128), 8),
        ("model.layers.0.mlp.experts.down_proj", (8, 4, 4), 8),
        ("block_sparse_moe.w1", (8, 64, 128), 8),
        ("encoder.conv1.weight", (384, 80, 3), 1),
        ("pos_conv_embed.weight", (384, 48, 128), 1),
        ("mixer.kernel", (384, 1, 4), 1),
        ("model.embed_tokens.weight", (100, 64), 1),
        ("patch.weight", (64, 3, 14, 14), 1),
    ],
)
def test_stacks_are_told_from_convolutions(name, shape, height):
    assert n_matrices(TensorInfo(name, "BF16", shape)) == height


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("h.0.ln_1.weight", (64, 64), "norm"),
        ("model.norm.weight", (64, 64), "norm"),
        ("blocks.0.query_norm.scale", (8, 64), None),  # of a module that no rule knows
        ("h.0.attn.bias", (64, 64), "bias"),
        ("in_proj_bias", (3, 64), "bias"),
        ("x.weight", (64,), "not a matrix"),
        ("x.weight", (1, 64, 1), "not a matrix"),
        ("x.weight", (0, 64), "not a matrix"),
        ("x.weight", (2,) * 9, "more than 8 axes"),
        ("x.weight", (64, 64), None),
        ("normal_projection.up.weight", (64, 64), None),
        ("biaser.weight", (64, 64), None),
    ],
)
def test_what_is_no_matrix_is_kept(name, shape, reason):
    assert reason_to_keep(TensorInfo(name, "F32", shape)) == reason


@pytest.mark.parametrize("suffix", ["_codebook", "_packed", "_protected_value"])
def test_names_that_would_collide_are_refused(suffix, tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a.weight": weights(40, 40), f"a.weight{suffix}": weights(5)}
    path.write_bytes(safetensors_bytes(tensors))
    with pytest.raises(InputError, match=f"a.weight{suffix}: has the name"):
        compress(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["", "a b/c\\d", "näme.权重", "x" * 5000, "../../etc", "\x1b[31m"])
def test_odd_names_are_names(name, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({name: weights(40, 40)}))
    compress(path, tmp_path / "out")
    assert records_of(tmp_path / "out").keys() == {name}
    assert verify(tmp_path / "out", against=path).ok
    decompress(tmp_path / "out", tmp_path / "dense")
    with safe_open(tmp_path / "dense" / "model.safetensors", "np") as file:
        assert set(file.keys()) == {name}


def test_a_stack_whose_matrices_have_fewer_values_than_k(tmp_path):
    experts = weights(3, 40, 40)
    experts[1] = np.sign(experts[1])
    experts[2] = 0.25
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"experts.w": experts}))
    compress(path, tmp_path / "out", k=8)
    assert verify(tmp_path / "out", against=path).ok
    decompress(tmp_path / "out", tmp_path / "dense")
    with safe_open(tmp_path / "dense" / "model.safetensors", "np") as file:
        assert np.array_equal(file.get_tensor("experts.w")[1:], experts[1:])


def test_a_model_within_a_symlinked_cache_is_read_through_its_links(model, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for i, (name, content) in enumerate(tree(model).items()):
        (blobs / str(i)).write_bytes(content)
        (snapshot / name).symlink_to(blobs / str(i))
    compress(snapshot, tmp_path / "out", k=6)
    assert verify(tmp_path / "out", against=model).ok
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
