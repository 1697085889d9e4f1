"""GGUF files as sources: what transformers makes of them, bit for bit, or a refusal in a line."""

from __future__ import annotations

import json
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from isotone.core.float_format import FloatFormat
from isotone.errors import InputError, MissingExtraError
from tests.builders.gguf_models import LLAMA, MODELS, write


@pytest.fixture(scope="module")
def open_gguf():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from isotone.models.gguf.source import open_gguf

    return open_gguf


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A file of every model, each in a folder of its own."""
    return {
        name: write(tmp_path_factory.mktemp("gguf") / "model.gguf", *parts)
        for name, parts in MODELS.items()
    }


@pytest.fixture(scope="module")
def sources(paths, open_gguf):
    return {name: open_gguf(path) for name, path in paths.items()}


def whole(source, tensor):
    kept = FloatFormat(tensor.dtype)
    return source.read(tensor, 0, tensor.n_weights).view(kept.bits_dtype).reshape(tensor.shape)


@pytest.mark.parametrize("name", MODELS)
def test_tensors_are_those_of_transformers(name, paths, sources):
    import torch
    from transformers import AutoModelForCausalLM

    source = sources[name]
    model = AutoModelForCausalLM.from_pretrained(
        paths[name].parent, gguf_file="model.gguf", dtype=torch.float32
    )
    expected = model.state_dict()
    tied = set(model.all_tied_weights_keys)
    assert {tensor.name for tensor in source.tensors} == set(expected) - tied
    for tensor in source.tensors:
        reference = expected[tensor.name].numpy()
        assert reference.shape == tensor.shape
        # Exact where the dtype is kept or upcast; the one rounding where the file has blocks.
        assert np.array_equal(
            whole(source, tensor), FloatFormat(tensor.dtype).downcast(reference)
        ), tensor.name


def test_dtypes_follow_the_policy(sources):
    def dtypes(name):
        return {tensor.name: tensor.dtype for tensor in sources[name].tensors}

    llama = dtypes("llama")
    assert llama["model.embed_tokens.weight"] == "BF16"  # Q8_0
    assert llama["model.layers.0.mlp.gate_proj.weight"] == "F16"
    assert llama["model.layers.0.mlp.up_proj.weight"] == "BF16"
    assert llama["model.layers.0.mlp.down_proj.weight"] == "F32"
    assert llama["model.layers.1.self_attn.k_proj.weight"] == "F16"  # reordered, not computed
    assert dtypes("gpt2")["transformer.h.0.attn.c_proj.weight"] == "F16"  # transposed
    assert dtypes("gemma2")["model.norm.weight"] == "F32"  # F16 in the file, one subtracted
    assert {name: source.config["dtype"] for name, source in sources.items()} == dict.fromkeys(
        MODELS, "bfloat16"
    )


def test_plain_floats_keep_their_bits(sources):
    source = sources["llama"]
    name = "model.layers.0.mlp.gate_proj.weight"
    tensor = next(tensor for tensor in source.tensors if tensor.name == name)
    array, _ = MODELS["llama"][2]["blk.0.ffn_gate.weight"]
    assert np.array_equal(whole(source, tensor), array.astype(np.float16).view(np.uint16))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_ranges_are_slices_of_the_whole(data, sources):
    source = sources[data.draw(st.sampled_from(list(MODELS)))]
    tensor = data.draw(st.sampled_from(source.tensors))
    start = data.draw(st.integers(0, tensor.n_weights))
    stop = data.draw(st.integers(start, tensor.n_weights))
    kept = FloatFormat(tensor.dtype)
    part = source.read(tensor, start, stop).view(kept.bits_dtype)
    assert np.array_equal(part, whole(source, tensor).ravel()[start:stop])


def test_reordered_rows_are_read_within_their_head(sources, monkeypatch):
    from isotone.models.gguf import tensors as gguf_tensors

    spans = []
    read = gguf_tensors.read_stored

    def recorded(file, tensor, start, stop):
        spans.append((start, stop))
        return read(file, tensor, start, stop)

    monkeypatch.setattr(gguf_tensors, "read_stored", recorded)
    source = sources["llama"]
    name = "model.layers.0.self_attn.q_proj.weight"
    tensor = next(tensor for tensor in source.tensors if tensor.name == name)
    head = 16 * 64  # rows of a head, columns
    for row in range(64):
        source.read(tensor, row * 64 + 3, row * 64 + 9)
        start, stop = spans.pop()
        assert row * 64 // head == start // head == (stop - 1) // head
    assert not spans


def test_threads_read_the_same(sources):
    source = sources["llama"]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda tensor: whole(source, tensor), source.tensors * 4))
    single = [whole(source, tensor) for tensor in source.tensors] * 4
    assert all(map(np.array_equal, threaded, single))


def test_tied_embedding_stays_tied(sources):
    names = {tensor.name for tensor in sources["llama"].tensors}
    assert "lm_head.weight" not in names
    assert sources["llama"].config["tie_word_embeddings"] is True
    assert sources["llama, untied"].config["tie_word_embeddings"] is False


def test_tensors_without_a_name_are_listed(sources):
    assert sources["llama"].skipped == []
    assert sources["llama, untied"].skipped == ["rope_freqs.weight"]


def test_directory_loads_without_the_file(sources, paths, tmp_path):
    """Config, tokenizer and weights make a directory that transformers loads, and nothing lacks."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = sources["llama"]
    kinds = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    save_file(
        {
            tensor.name: torch.from_numpy(whole(source, tensor))
            .view(kinds[tensor.dtype])
            .reshape(tensor.shape)
            for tensor in source.tensors
        },
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    (tmp_path / "config.json").write_text(json.dumps(source.config))
    for companion in source.companions:
        (tmp_path / companion.name).write_bytes(companion.content)
    assert source.config["architectures"] == ["LlamaForCausalLM"]
    assert not any("name_or_path" in key for key in source.config)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    from_file = AutoTokenizer.from_pretrained(paths["llama"].parent, gguf_file="model.gguf")
    text = "Then the cat<|end|> th"
    assert tokenizer(text).input_ids == from_file(text).input_ids
    turns = [{"role": "user", "content": "Hello"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    assert rendered == from_file.apply_chat_template(turns, tokenize=False)
    assert rendered == "<|start|>Hello<|end|>"


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_is_that_of_auto_tokenizer(name, sources, paths, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(paths[name].parent, gguf_file="model.gguf")
    tokenizer.save_pretrained(tmp_path)
    expected = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    found = {companion.name: companion.content for companion in sources[name].companions}
    assert found.pop("generation_config.json")
    assert found == expected


def test_identity_changes_with_the_file(open_gguf, tmp_path):
    path = write(tmp_path / "a.gguf", *MODELS["llama"])
    before = open_gguf(path).identity()
    assert before == open_gguf(path).identity()
    assert json.loads(json.dumps(before)) == before
    path.write_bytes(path.read_bytes() + b"\0")
    assert open_gguf(path).identity() != before


# What cannot be read.


def without(parts, *names):
    architecture, numbers, tensors = parts
    return architecture, numbers, {k: v for k, v in tensors.items() if k not in names}


def changed(parts, **numbers):
    architecture, old, tensors = parts
    return architecture, old | {k.replace("__", "."): v for k, v in numbers.items()}, tensors


REFUSED = {
    "unknown architecture": (("plankton", LLAMA, MODELS["llama"][2]), "plankton"),
    "incomplete": (without(MODELS["llama"], "blk.1.ffn_up.weight"), "mlp.up_proj"),
    "misshapen": (changed(MODELS["llama"], feed_forward_length=128), "shape"),
    "heads": (changed(MODELS["llama"], attention__head_count=7), "heads"),
    "no heads": (changed(MODELS["llama"], attention__head_count=0), "ZeroDivision"),
    "layers": (changed(MODELS["llama"], block_count=4_000_000_000), "4000000000 layers"),
    "experts": (changed(MODELS["qwen3moe"], expert_count=4), "shape"),
    "half of the experts": (without(MODELS["qwen3moe"], "blk.0.ffn_up_exps.weight"), "shape"),
}


def test_weights_with_a_scale_of_their_own_are_refused(open_gguf, tmp_path):
    architecture, numbers, tensors = MODELS["llama"]
    scale = {"blk.0.ffn_up.scale": (np.ones(1, np.float32), Type.F32)}
    path = write(tmp_path / "model.gguf", architecture, numbers, tensors | scale)
    with pytest.raises(InputError, match=r"blk\.0\.ffn_up\.scale"):
        open_gguf(path)


def test_missing_torch_names_the_extra(open_gguf, paths, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"isotone\[models\]"):
        open_gguf(paths["llama"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_transformers_cannot_load_is_refused_in_a_line(name, open_gguf, tmp_path):
    parts, pattern = REFUSED[name]
    path = write(tmp_path / "model.gguf", *parts)
    with pytest.raises(InputError, match=pattern) as caught:
        open_gguf(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_file_without_a_tokenizer_is_refused(open_gguf, tmp_path):
    path = write(tmp_path / "model.gguf", *MODELS["llama"], tokenizer=False)
    with pytest.raises(InputError, match="transformers cannot read"):
        open_gguf(path)


def test_types_that_gguf_cannot_dequantise_are_refused_by_name(open_gguf, tmp_path):
    architecture, numbers, tensors = MODELS["llama"]
    path = write(tmp_path / "model.gguf", architecture, numbers, tensors)
    content = bytearray(path.read_bytes())
    at = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    assert struct.unpack_from("<I", content, at) == (Type.F32,)
    struct.pack_into("<I", content, at, Type.I32)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"output_norm\.weight is of type I32"):
        open_gguf(path)
