"""Tensors with a row for each token: the head counts more, and none gets column factors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.pipeline.allocate.importance import Importance
from isotone.pipeline.compress import compress
from isotone.pipeline.inspect import inspect
from tests.builders.checkpoints import write_model

VOCABULARY, WIDTH = 100, 8
CAUSAL = {"architectures": ["LlamaForCausalLM"], "vocab_size": VOCABULARY}


def heads(names, config, tied=None):
    """The names that count more than others."""
    tensors = [TensorInfo(name, "BF16", (VOCABULARY, WIDTH)) for name in names]
    tensors += [TensorInfo("model.layers.0.mlp.up_proj.weight", "BF16", (32, WIDTH))]
    importance = Importance.assumed(SimpleNamespace(tensors=tensors, config=config), tied or {})
    counted = {tensor.name: importance(tensor) for tensor in tensors}
    assert set(counted.values()) <= {1.0, 16.0}
    return {name for name, times in counted.items() if times == 16.0}


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize(
    ("names", "config", "tied", "expected"),
    [
        ([EMBEDDING], CAUSAL, {}, {EMBEDDING}),  # tied, stored once
        ([EMBEDDING, HEAD], CAUSAL, {}, {HEAD}),
        ([EMBEDDING, HEAD], CAUSAL, {HEAD: EMBEDDING}, {EMBEDDING}),  # tied, stored twice
        (["transformer.wte.weight"], CAUSAL | {"architectures": ["GPT2LMHeadModel"]}, {}, "all"),
        (["word_embeddings.weight"], {**CAUSAL, "architectures": ["BertModel"]}, {}, set()),
        ([EMBEDDING, "layers.0.attention.q.weight"], CAUSAL, {}, {EMBEDDING}),  # as in ByT5
        (["lm_heads.0.weight", "lm_heads.1.weight"], CAUSAL, {}, "all"),
        ([EMBEDDING], {"vocab_size": VOCABULARY}, {}, set()),
        ([EMBEDDING], {}, {}, set()),
        ([EMBEDDING], {**CAUSAL, "vocab_size": VOCABULARY + 1}, {}, set()),
        (
            ["model.language_model.embed_tokens.weight", HEAD],
            {
                "architectures": ["Gemma3ForConditionalGeneration"],
                "text_config": {"vocab_size": VOCABULARY},
            },
            {},
            {HEAD},
        ),
    ],
)
def test_the_head_is_what_makes_logits(names, config, tied, expected):
    assert heads(names, config, tied) == (set(names) if expected == "all" else expected)


def test_a_matrix_with_a_row_for_each_token_gets_row_factors_alone(tmp_path):
    weights_ = np.random.default_rng(0).standard_normal((VOCABULARY, 64))
    weights_ *= np.exp(np.random.default_rng(1).standard_normal(64))
    arrays = {"model.embed_tokens.weight": weights_.astype("<f4"), "other.weight": weights_[:99]}
    arrays["other.weight"] = arrays["other.weight"].astype("<f4")
    model = write_model(tmp_path / "model", arrays, config=CAUSAL)
    compress(model, tmp_path / "out")
    compress(model, tmp_path / "asked", settings=["*embed*:scale=both"])
    scales = [
        {report.record.name: report.record.scale for report in inspect(tmp_path / at).clustered}
        for at in ("out", "asked")
    ]
    assert scales[0] == {"model.embed_tokens.weight": "row", "other.weight": "both"}
    assert scales[1] == {"model.embed_tokens.weight": "both", "other.weight": "both"}
