"""A packed model gives the numbers of the dense one, and saves the directory it came from."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import AutoModel

from isotone.checkpoint.opening import open_compressed
from isotone.errors import InputError
from isotone.models.packed.modules import clustered_weights, hosts
from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders.tiny_models import CONFIGS, ids, load_clustered, write_tiny


def clustered_records(directory):
    return open_compressed(directory).manifest.clustered


@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_equal_those_of_dense_residency(kind, compressed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may stay dense unnoticed
        packed = load_clustered(compressed(kind))
    dense = load_clustered(compressed(kind), "dense")
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)
    for name, parameter in hosts(packed):
        assert torch.equal(parameter.deferred() + 0, dense.get_parameter(name)), name
    assert packed.dtype == dense.dtype == torch.bfloat16
    held = {leaf.name for leaf in clustered_weights(packed)}
    assert held == {record.name for record in clustered_records(compressed(kind))}


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe"])
def test_logits_equal_with_scales_of_both_sides(kind, tmp_path):
    source = write_tiny(kind, tmp_path / "dense")
    compress(source, tmp_path / "out", bits=5.0, scale="both", workers=1)
    assert {record.scale for record in clustered_records(tmp_path / "out")} == {"both"}
    packed, dense = load_clustered(tmp_path / "out"), load_clustered(tmp_path / "out", "dense")
    assert all(leaf.row_scale.dtype == torch.uint8 for leaf in clustered_weights(packed))
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe"])
@pytest.mark.parametrize("options", [{"dtype": torch.float32}, {"device_map": "auto"}])
def test_dtype_and_device_map(kind, options, compressed):
    packed, dense = (
        load_clustered(compressed(kind), **options),
        load_clustered(compressed(kind), "dense", **options),
    )
    assert packed.dtype == dense.dtype
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_every_way_to_run_experts(implementation, compressed):
    options = {"experts_implementation": implementation, "dtype": torch.float32}
    packed = load_clustered(compressed("qwen3-moe"), **options)
    dense = load_clustered(compressed("qwen3-moe"), "dense", **options)
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


def test_generation(compressed):
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    packed, dense = (
        load_clustered(compressed("gemma3")),
        load_clustered(compressed("gemma3"), "dense"),
    )
    assert torch.equal(packed.generate(ids(), **options), dense.generate(ids(), **options))


def test_the_base_model_alone_does_not_warn(compressed):
    packed = load_clustered(compressed("llama-untied"), cls=AutoModel)
    dense = load_clustered(compressed("llama-untied"), "dense", cls=AutoModel)
    assert torch.equal(packed(ids())[0], dense(ids())[0])


def test_saved_as_it_came(compressed, tmp_path):
    packed = load_clustered(compressed("qwen3-moe"))
    packed.save_pretrained(tmp_path)
    assert verify(tmp_path).ok
    for path in compressed("qwen3-moe").iterdir():
        if not path.name.startswith("."):
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    again = load_clustered(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, packed(ids()).logits)


def test_a_changed_model_is_not_saved_as_unchanged(compressed, tmp_path):
    packed = load_clustered(compressed("llama-tied"))
    with torch.no_grad():
        packed.model.norm.weight.add_(1)
    with pytest.raises(InputError, match=r"model\.norm\.weight: was changed"):
        packed.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_dtype_later(compressed):
    packed, dense = (
        load_clustered(compressed("llama-tied")),
        load_clustered(compressed("llama-tied"), "dense"),
    )
    packed, dense = packed.to(torch.float32), dense.to(torch.float32)
    assert packed.dtype == torch.float32
    assert all(leaf.codebook.dtype == torch.float32 for leaf in clustered_weights(packed))
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


def test_training_the_codebooks(compressed):
    """One step changes the loss: gradients reach the codebooks through tied and looked-up rows."""
    packed = load_clustered(compressed("llama-tied"), dtype=torch.float32)
    codebooks = [leaf.codebook.requires_grad_() for leaf in clustered_weights(packed)]
    before = packed(ids(), labels=ids()).loss
    before.backward()
    assert all(codebook.grad is not None for codebook in codebooks)
    torch.optim.SGD(codebooks, 0.05).step()
    assert packed(ids(), labels=ids()).loss < before
