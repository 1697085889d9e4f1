"""The tokenizer of a GGUF file: what it puts before a text."""

from __future__ import annotations

import gguf
import pytest
from transformers import AutoTokenizer

from isotone.checkpoint.gguf.file import GgufFile
from isotone.models.gguf.model import read_model
from tests.builders.gguf_models import MODELS, write


@pytest.mark.parametrize(
    ("flag", "pre", "begins"),
    [
        (True, "smollm", True),
        (False, "llama-bpe", False),
        (None, "smollm", False),
        (None, "llama-bpe", True),
        (None, "tekken", True),
        (None, None, False),
    ],
)
def test_a_text_begins_as_llama_cpp_begins_it(tmp_path, monkeypatch, flag, pre, begins):
    def close(writer):
        if flag is not None:
            writer.add_add_bos_token(flag)
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        return written(writer)

    written = gguf.GGUFWriter.write_header_to_file
    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", close)
    path = write(tmp_path / "model.gguf", *MODELS["llama"])
    for file in read_model(GgufFile.open(path)).companions:
        (tmp_path / file.name).write_bytes(file.content)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer("the")["input_ids"][0] == tokenizer.bos_token_id) == begins
