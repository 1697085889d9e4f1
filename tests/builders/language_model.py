"""A tiny language model of transformers with a tokenizer and a text, made on the spot."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MAX_POSITIONS = 64

SENTENCE = "the a model weight codebook rank is was has keeps of in and but small large 7 é ☃"


def text(n_words=600, seed=0):
    """Words of no sense."""
    draw, words = random.Random(seed), SENTENCE.split()
    return " ".join(draw.choice(words) for _ in range(n_words))


def tokenizer(chat_template=None, n_tokens=290, before=(), after=(), **named):
    """A byte-level BPE trained on such text; a token may be a word, or a part of a character.

    It puts the special tokens `before` and `after` around every text. `named` says what special
    tokens are called, such as bos_token.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([text(100)], trainer)
    core.add_special_tokens([*before, *after, *named.values()])
    if before or after:
        around = [(token, core.token_to_id(token)) for token in {*before, *after}]
        core.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after], special_tokens=around
        )
    made = PreTrainedTokenizerFast(tokenizer_object=core, **{"eos_token": "<end>"} | named)
    made.chat_template = chat_template
    return made


def model(seed=0, **changes):
    """A Llama with random weights, so wide that its predictions are far from uniform."""
    settings = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def write_language_model(directory, its_tokenizer=None, **changes):
    """A model directory as save_pretrained makes it. Returns the directory."""
    model(**changes).save_pretrained(directory)
    (its_tokenizer or tokenizer()).save_pretrained(directory)
    return Path(directory)
