"""A matrix that repeats an embedding is stored once and comes back under each name; no other is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from isotone.errors import FormatError
from isotone.models.open_source import open_source
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan.tied import find_tied
from tests.builders.checkpoints import Bf16, weights, write_model
from tests.builders.tampering import forge, is_refused, set_value

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
VOCABULARY = {"vocab_size": 90}
EMBEDDINGS = {EMBEDDING, "shared.weight", "encoder.embed_tokens.weight"}
POSITIONS = "model.embed_positions.weight"
NAMES = [
    EMBEDDING,
    HEAD,
    "shared.weight",
    "encoder.embed_tokens.weight",
    "output.weight",
    "layers.0.attention.output.weight",
    "layers.0.attention.key.weight",
    POSITIONS,
]


def tied_model(path, config, head=None):
    embedding = Bf16(weights(90, 40, seed=1))
    tensors = {EMBEDDING: embedding, "model.up.weight": Bf16(weights(40, 40))}
    tensors[HEAD] = embedding if head is None else head
    return write_model(path, tensors, config=config)


def kept_of(directory):
    manifest = json.loads((directory / "isotone.json").read_text())
    return {record["name"]: record for record in manifest["kept"]}


def names_in(path):
    with safe_open(path, "np") as file:
        return set(file.keys())


@pytest.mark.parametrize(
    "config",
    [
        VOCABULARY,
        VOCABULARY | {"tie_word_embeddings": True},
        {"text_config": VOCABULARY | {"tie_word_embeddings": True}},
        VOCABULARY | {"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}},
        VOCABULARY | {"tie_word_embeddings": False},
        {"thinker_config": {"text_config": VOCABULARY}},
        {"decoder_vocab_size": 90},
        {"n_vocab": 90},
        {"vocab_size": 83},  # its rows are padded
        {},
    ],
)
def test_a_tied_copy_is_stored_once_and_comes_back_under_its_name(config, tmp_path):
    model, out = tied_model(tmp_path / "model", config), tmp_path / "out"
    summary = compress(model, out)
    assert (summary.n_tensors, summary.n_kept, summary.coverage) == (2, 0, 1.0)
    record = kept_of(out)[HEAD]
    assert (record["tied_to"], record["file"]) == (EMBEDDING, "")
    assert verify(out, against=model).ok
    decompress(out, tmp_path / "dense")
    assert names_in(tmp_path / "dense/model.safetensors") == {EMBEDDING, HEAD, "model.up.weight"}


@pytest.mark.parametrize("why", ["other bytes", "other shape"])
def test_what_only_looks_tied_stays(why, tmp_path, monkeypatch):
    monkeypatch.setattr("isotone.plan.tied._PIECE_WEIGHTS", 1000)
    rows = weights(90, 40, seed=1)[: 80 if why == "other shape" else 90]
    rows[-1, -1] += why == "other bytes"
    model = tied_model(tmp_path / "model", VOCABULARY, Bf16(rows))
    assert find_tied(open_source(model)) == {}


def test_a_source_whose_copy_changed_is_not_the_one_that_was_compressed(tmp_path):
    compress(tied_model(tmp_path / "model", VOCABULARY), tmp_path / "out")
    other = tied_model(tmp_path / "model", VOCABULARY, Bf16(weights(90, 40, seed=2)))
    (failure,) = verify(tmp_path / "out", against=other).failures
    assert failure.startswith(f"{HEAD}: in the source it does not repeat {EMBEDDING}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tied_to", "z.weight"),
        ("tied_to", HEAD),
        ("tied_to", "model.up.weight"),
        ("source_hash", "0" * 64),
        ("shape", [45, 80]),
        ("dtype", "F16"),
    ],
)
def test_a_forged_copy_is_refused(key, value, tmp_path):
    compress(tied_model(tmp_path / "model", VOCABULARY), tmp_path / "out")
    assert not is_refused(tmp_path / "out")
    forge(tmp_path / "out", set_value("kept", key, value))
    assert is_refused(tmp_path / "out")
    with pytest.raises(FormatError, match=f"{HEAD}: is no copy of"):
        decompress(tmp_path / "out", tmp_path / "dense")


@settings(max_examples=60, deadline=None)
@given(
    chosen=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2), min_size=1),
    n_rows=st.sampled_from([8, 12]),
    tie=st.sampled_from([None, True, False]),
)
def test_only_copies_of_an_embedding_are_tied(chosen, n_rows, tie, tmp_path_factory):
    """`chosen` gives each name one of three contents, the first of them all zeros."""
    config = {"vocab_size": 12} | ({} if tie is None else {"tie_word_embeddings": tie})
    contents = [np.zeros((n_rows, 8), "<f4"), weights(n_rows, 8), weights(n_rows, 8, seed=1)]
    tensors = {name: contents[i] for name, i in chosen.items()}
    found = find_tied(
        open_source(write_model(tmp_path_factory.mktemp("m"), tensors, config=config))
    )
    for copy, original in found.items():
        assert chosen[copy] == chosen[original]
        assert original in EMBEDDINGS or (original == POSITIONS and n_rows == 12)
        assert original not in found
    inputs = EMBEDDINGS | ({POSITIONS} if n_rows == 12 else set())
    for content in range(3):
        equal = [name for name in chosen if chosen[name] == content]
        n_stored = len([name for name in equal if name not in found])
        assert n_stored == (1 if inputs & set(equal) else len(equal))
