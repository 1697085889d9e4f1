"""Swapped codebooks and weights come back bit for bit, whatever happens in between."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone
from isotone.errors import InputError
from tests.builders.tiny_models import ids, load_clustered

RESIDENCIES = ["dense", "packed"]


@pytest.fixture
def load(compressed):
    def make(kind, residency="dense", **options):
        return load_clustered(compressed(kind), residency, **options)

    return make


def logits(model):
    with torch.no_grad():
        return model(ids()).logits


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_state(model, before):
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def negated(tensor):
    return -tensor.codebook


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe", "gpt2"])
def test_a_codebook_edit_and_its_end(kind, residency, load):
    model = load(kind, residency)
    before, base = state(model), logits(model)
    with isotone.swapped(model, {"*.0.*": negated}) as names:
        assert names
        assert not torch.equal(logits(model), base)
    assert_state(model, before)
    assert torch.equal(logits(model), base)


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe"])
def test_dense_and_packed_agree_on_an_edit(kind, load):
    seen = []
    for residency in RESIDENCIES:
        model = load(kind, residency)
        with isotone.swapped(model, {"*proj*": lambda t: t.codebook * np.float32(1.5)}):
            seen.append(logits(model))
    assert torch.equal(*seen)


def test_an_edit_is_told_ranks_and_counts(load):
    model, told = load("llama-tied"), []

    def look(tensor):
        told.append(tensor)
        return tensor.codebook

    before = state(model)
    with isotone.swapped(model, {"model.layers.1.mlp.up_proj": look}) as names:
        assert names == ["model.layers.1.mlp.up_proj.weight"]
        assert_state(model, before)  # the same codebook gives the same weights
    (tensor,) = told
    assert tensor.counts.sum() == tensor.n_weights == 48 * 32
    assert torch.equal(
        torch.from_numpy(tensor.dense()), before["model.layers.1.mlp.up_proj.weight"].float()
    )


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_replacement_codebook(residency, load):
    model = load("llama-untied", residency)
    codebook = np.arange(16, dtype=np.float32)
    name = "model.layers.0.self_attn.q_proj"
    module = model.get_submodule(name)
    told = []
    with isotone.swapped(model, {name: lambda tensor: told.append(tensor) or tensor.codebook}):
        pass
    expected = torch.from_numpy(told[0].with_codebook(codebook).dense())
    for given in (codebook, torch.from_numpy(codebook)):
        with isotone.swapped(model, {name: given}):
            assert torch.equal((module.weight + 0).float(), expected)


@pytest.mark.parametrize("of", ["codebook", "weight"])
def test_restored_after_an_exception(of, load):
    model = load("llama-tied")
    before = state(model)
    edit = negated if of == "codebook" else torch.neg
    with pytest.raises(KeyError), isotone.swapped(model, {"*mlp*": edit}, of):
        raise KeyError
    assert_state(model, before)


@pytest.mark.parametrize(
    ("of", "residency"), [("codebook", "dense"), ("codebook", "packed"), ("weight", "dense")]
)
def test_restored_when_an_edit_fails_halfway(of, residency, load):
    model = load("llama-tied", residency)
    before, calls = state(model), []

    def fail_at_third(tensor):
        calls.append(tensor)
        if len(calls) == 3:
            raise ZeroDivisionError
        return negated(tensor) if of == "codebook" else -tensor

    edits = {"model.layers.*": fail_at_third}
    with pytest.raises(ZeroDivisionError), isotone.swapped(model, edits, of):
        pytest.fail("was entered")
    assert len(calls) == 3
    assert_state(model, before)


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_nested(residency, load):
    model = load("llama-untied", residency)
    before, edits = state(model), {"model.layers.0.*": negated}
    with isotone.swapped(model, edits):
        once = state(model)
        with isotone.swapped(model, {"*up_proj": negated}):
            twice = state(model)
            assert any(not torch.equal(tensor, twice[name]) for name, tensor in once.items())
        assert_state(model, once)
    assert_state(model, before)


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_tied_weights_are_edited_once_by_either_name(residency, load):
    calls = []

    def count(tensor):
        calls.append(tensor)
        return -tensor.codebook

    seen = []
    for glob in ("lm_head", "model.embed_tokens", "*"):
        model = load("llama-tied", residency)
        calls.clear()
        before = state(model)
        with isotone.swapped(model, {glob: count}):
            seen.append(logits(model))
            head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
            assert torch.equal(head.weight + 0, embedding.weight + 0)
        assert_state(model, before)
        assert len(calls) == (15 if glob == "*" else 1)
    assert torch.equal(seen[0], seen[1])


def test_the_last_glob_counts(load):
    model = load("llama-untied")
    name = "model.layers.0.mlp.up_proj.weight"
    ones = torch.ones_like(model.get_parameter(name))
    with isotone.swapped(model, {"*up_proj*": torch.neg, name: ones}, "weight") as names:
        assert torch.equal(model.get_parameter(name), ones)
        assert len(names) == 2


def test_weights_of_any_model(compressed):
    model = AutoModelForCausalLM.from_pretrained(compressed("gpt2").parent / "dense")
    before = state(model)
    weight = model.transformer.h[0].attn.c_attn.weight
    with isotone.swapped(model, {"*.attn.c_attn": lambda w: w * 2}, of="weight"):
        assert model.transformer.h[0].attn.c_attn.weight is weight
        assert torch.equal(weight, 2 * before["transformer.h.0.attn.c_attn.weight"])
        assert weight.requires_grad
    assert_state(model, before)


def test_gradients_are_as_on_as_they_were(load):
    model = load("llama-tied")
    with isotone.swapped(model, {"*mlp*": negated}):
        assert torch.is_grad_enabled()
        model(ids(), labels=ids()).loss.backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None


# -- what is refused ------------------------------------------------------------------------------

REFUSED = {
    "no such matrix": ({"*nothing*": negated}, "codebook", r"'\*nothing\*' matches none of the 15"),
    "no such weight": ({"*nothing*": torch.neg}, "weight", r"'\*nothing\*' matches none"),
    "another k": ({"*up_proj": np.zeros(7, np.float32)}, "codebook", r"up_proj.*shape \(7,\)"),
    "float64": ({"*up_proj": np.zeros(16)}, "codebook", "float64"),
    "NaN": ({"*up_proj": np.full(16, np.nan, np.float32)}, "codebook", "NaN or infinity"),
    "no array": ({"*up_proj": lambda _: None}, "codebook", "NoneType was given for a codebook"),
    "another shape": ({"*up_proj": torch.zeros(2, 2)}, "weight", r"a Tensor of \(2, 2\)"),
    "no tensor": ({"*up_proj": lambda _: 3}, "weight", "int was given for a weight"),
    "another kind": ({"*": negated}, "codebooks", "expected 'codebook' or 'weight'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, load):
    edits, of, message = REFUSED[case]
    model = load("llama-tied")
    before = state(model)
    with pytest.raises(InputError, match=message), isotone.swapped(model, edits, of):
        pytest.fail("was entered")
    assert_state(model, before)


def test_codebooks_of_a_dense_model(compressed):
    model = AutoModelForCausalLM.from_pretrained(compressed("gpt2").parent / "dense")
    with (
        pytest.raises(InputError, match="was not loaded from a clustered directory"),
        isotone.swapped(model, {"*": negated}),
    ):
        pytest.fail("was entered")


def test_weights_of_a_packed_model(load):
    model = load("llama-tied", "packed")
    with (
        pytest.raises(InputError, match="is packed, so it has no weight to swap"),
        isotone.swapped(model, {"model.layers.0.*": torch.neg}, of="weight"),
    ):
        pytest.fail("was entered")
