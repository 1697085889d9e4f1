"""GGUF files without an output matrix, with one that repeats the embedding, and with another."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from isotone.models.plugin.config import IsotoneConfig
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders.gguf_models import MODELS, TOKENS, Type, filled, write
from tests.builders.loaded_models import assert_equal, load

WIDTHS = {"llama": 64, "gpt2": 32, "qwen3moe": 32}


def heads(model):
    """The output embedding, the input embedding, and whether they are one and the same."""
    output, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    return output, embedding, output is embedding


@pytest.mark.parametrize("output", ["absent", "equal", "another"])
@pytest.mark.parametrize("kind", WIDTHS)
def test_the_output_matrix_is_tied_where_transformers_ties_it(kind, output, tmp_path):
    architecture, numbers, tensors = MODELS[kind]
    embedding = tensors["token_embd.weight"]
    tensors = {name: tensor for name, tensor in tensors.items() if name != "output.weight"}
    if output == "equal":
        tensors["output.weight"] = embedding
    if output == "another":
        shape = len(TOKENS), WIDTHS[kind]
        tensors |= filled({"output.weight": (shape, Type.F32)})
    (tmp_path / "model").mkdir()
    file = tmp_path / "model/model.gguf"
    write(file, architecture, numbers, tensors)
    compress(file, tmp_path / "out", bits=3.5, workers=1)
    assert verify(tmp_path / "out", against=file).ok
    decompress(tmp_path / "out", tmp_path / "plain")

    original = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    head, embedding, is_tied = heads(original)
    reference, info = load(AutoModelForCausalLM, tmp_path / "plain")
    assert not any(info.values())
    after = heads(reference)
    assert after[2] == is_tied == (output == "absent")
    assert torch.equal(*after[:2]) == torch.equal(head, embedding) == (output != "another")
    for residency in ("dense", "packed"):
        config = IsotoneConfig(residency=residency)
        model, found = load(AutoModelForCausalLM, tmp_path / "out", config)
        assert found == info
        assert_equal(model, reference, except_for=set())
