"""Which tensors are taken to make a model's logits, and so count more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from isotone.checkpoint.source import TensorInfo
from isotone.pipeline.damage import relative_error

VOCABULARY, WIDTH = 100, 8
CAUSAL = {"architectures": ["LlamaForCausalLM"], "vocab_size": VOCABULARY}


def heads(names, config, tied=None):
    """The names that count more than others."""
    tensors = [TensorInfo(name, "BF16", (VOCABULARY, WIDTH)) for name in names]
    tensors += [TensorInfo("model.layers.0.mlp.up_proj.weight", "BF16", (32, WIDTH))]
    damage = relative_error(SimpleNamespace(tensors=tensors, config=config), tied or {})
    counted = {tensor.name: damage(tensor) for tensor in tensors}
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
