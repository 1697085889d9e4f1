"""Which weights of a folder are taken: those that transformers loads, and never half of them."""

from __future__ import annotations

import json

import pytest

import isotone
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.errors import FormatError, InputError
from tests.builders.checkpoints import safetensors_bytes, weights, write_model

CONFIG = {"model_type": "unheard-of", "vocab_size": 64}


def shard(name="layer.weight", seed=0):
    return safetensors_bytes({name: weights(64, 40, seed=seed)}, {"format": "pt"})


def folder(path, files, config=None):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(
            json.dumps(content).encode() if isinstance(content, dict) else content
        )
    return path


def index(**weight_map):
    return {"metadata": {}, "weight_map": {k.replace("_", "."): v for k, v in weight_map.items()}}


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SHARDED = {
    FIRST: shard("one.weight"),
    SECOND: shard("two.weight"),
    "model.safetensors.index.json": index(one_weight=FIRST, two_weight=SECOND),
}
SINGLE = {"model.safetensors": shard()}
OTHERS = {
    "consolidated.safetensors": shard("original"),
    "model.fp16.safetensors": shard(),
    "ema-00001-of-00002.safetensors": shard(),
}


@pytest.mark.parametrize(
    ("files", "config", "taken"),
    [
        (SINGLE, {}, ["model.safetensors"]),
        (SHARDED, {}, [FIRST, SECOND]),
        ({**SHARDED, **SINGLE}, {}, ["model.safetensors"]),
        ({**SHARDED, **OTHERS}, {}, [FIRST, SECOND]),
        ({**SINGLE, **OTHERS}, {}, ["model.safetensors"]),
        (
            {**SINGLE, **OTHERS},
            {"transformers_weights": "model.fp16.safetensors"},
            ["model.fp16.safetensors"],
        ),
        ({FIRST: SHARDED[FIRST], SECOND: SHARDED[SECOND]}, {}, [FIRST, SECOND]),
        ({"consolidated.safetensors": shard()}, {}, ["consolidated.safetensors"]),
        (
            {"adapter_model.safetensors": shard("a.lora_A.weight"), **SINGLE},
            {},
            ["model.safetensors"],
        ),
    ],
)
def test_the_set_of_transformers_is_taken_and_all_others_are_named(tmp_path, files, config, taken):
    source = ModelDirectory(folder(tmp_path / "model", files, config))
    assert [file.path.name for file in source.files] == taken
    others = {name for name in files if name.endswith((".safetensors", ".index.json"))}
    others -= {*taken, "adapter_model.safetensors"}
    if taken == [FIRST, SECOND]:
        others.discard("model.safetensors.index.json")
    assert set(source.left_out) == others


def test_left_out_sets_are_in_the_summary_and_not_in_the_output(tmp_path):
    model = folder(tmp_path / "model", {**SINGLE, **OTHERS, **SHARDED})
    summary = isotone.compress(model, tmp_path / "out", k=4)
    assert set(OTHERS) | set(SHARDED) == set(summary.left_out)
    assert isotone.inspect(tmp_path / "out").summary.left_out == summary.left_out
    assert [p.name for p in (tmp_path / "out").glob("*.safetensors")] == ["model.safetensors"]
    assert isotone.verify(tmp_path / "out", against=model).ok


def test_several_missing_shards_are_all_named(tmp_path):
    names = [f"model-{number:05}-of-000009.safetensors" for number in range(1, 10)]
    files = {name: shard(f"layer{i}.weight") for i, name in enumerate(names) if i in (2, 4)}
    with pytest.raises(FormatError) as caught:
        ModelDirectory(folder(tmp_path / "model", files))
    assert str(caught.value) == (
        f"{tmp_path / 'model' / names[0]}, {names[1]}, {names[3]}, {names[5]} and 3 more: are "
        "named as a part by the files beside it and are missing; fetch the model again"
    )


@pytest.mark.parametrize(
    "names",
    [
        ["model.fp16-00001-of-00002.safetensors"],
        ["model-00002-of-00002.fp16.safetensors"],
        ["model_00001-of-00002.safetensors"],
        ["consolidated-00000-of-00002.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00003-of-00002.safetensors"],
    ],
)
def test_half_a_set_is_known_by_any_way_to_number_files(tmp_path, names):
    files = {name: shard(f"layer{i}.weight") for i, name in enumerate(names)}
    with pytest.raises(FormatError, match="missing; fetch the model again"):
        ModelDirectory(folder(tmp_path / "model", files))


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("names", [["consolidated.safetensors"], [FIRST, SECOND]])
def test_where_transformers_would_load_pickles_no_other_set_is_taken(tmp_path, pickle, names):
    files = {name: shard(f"layer{i}.weight") for i, name in enumerate(names)}
    with pytest.raises(InputError, match=f"transformers would load {pickle}"):
        ModelDirectory(folder(tmp_path / "model", {**files, pickle: b""}))
    ModelDirectory(folder(tmp_path / "named", {**files, **SINGLE, pickle: b""}))


@pytest.mark.parametrize("named", ["other.safetensors", "../model/model.safetensors"])
def test_the_file_that_the_config_names_has_to_be_there(tmp_path, named):
    model = folder(tmp_path / "model", SINGLE, {"transformers_weights": named})
    with pytest.raises(FormatError, match=r"which config\.json names as the one to load"):
        ModelDirectory(model)


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({}, "has no weight_map"),
        ({"a": 1}, "has no weight_map"),
        ({"a": "x" * 300 + ".safetensors"}, "not a plain file name"),
        ({"a": ".."}, "no .safetensors file"),
        ({"a": "pytorch_model.bin"}, "no .safetensors file"),
        ({"a": "\0.safetensors"}, "missing"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, weight_map, says):
    files = {"model.safetensors.index.json": {"weight_map": weight_map}, "pytorch_model.bin": b""}
    with pytest.raises(FormatError, match=says):
        ModelDirectory(folder(tmp_path / "model", files))


def test_a_shard_by_itself_is_refused(tmp_path):
    model = folder(tmp_path / "model", SHARDED)
    with pytest.raises(InputError, match="one of 2 files of a model"):
        isotone.compress(model / FIRST, tmp_path / "out", k=4)


def test_a_set_under_odd_names_is_written_under_the_usual_ones(tmp_path):
    files = {"foo_1-of-2.safetensors": SHARDED[FIRST], "foo_2-of-2.safetensors": SHARDED[SECOND]}
    model = folder(tmp_path / "model", files)
    isotone.compress(model, tmp_path / "out", k=4)
    assert {p.name for p in (tmp_path / "out").glob("*.safetensors")} == {"model.safetensors"}
    assert isotone.verify(tmp_path / "out", against=model).ok


@pytest.mark.parametrize("missing", [1, 3, 6])
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("prefix", ["model", "weights"])
def test_a_set_that_lacks_a_shard_is_refused(tmp_path, missing, indexed, prefix):
    names = [f"{prefix}-{number:05}-of-00006.safetensors" for number in range(1, 7)]
    files = {name: shard(f"layer{i}.weight") for i, name in enumerate(names) if i + 1 != missing}
    if indexed:
        # The index forgets the shard as well, so that only the names tell.
        weight_map = {f"layer{i}.weight": n for i, n in enumerate(names) if i + 1 != missing}
        files[f"{prefix}.safetensors.index.json"] = {"weight_map": weight_map}
    with pytest.raises(FormatError, match=names[missing - 1]):
        ModelDirectory(folder(tmp_path / "model", files))


def test_a_shard_that_the_index_names_has_to_be_there(tmp_path):
    files = {name: content for name, content in SHARDED.items() if name != SECOND}
    with pytest.raises(FormatError, match=f"{SECOND}: is named by"):
        ModelDirectory(folder(tmp_path / "model", files))


def test_several_sets_of_which_transformers_would_load_none_are_refused_by_name(tmp_path):
    model = folder(tmp_path / "model", {"a.safetensors": shard(), "b.safetensors": shard()})
    with pytest.raises(InputError, match=r"a\.safetensors, b\.safetensors"):
        ModelDirectory(model)


@pytest.mark.parametrize(
    ("name", "tie", "accepted"),
    [
        ("lm_head.weight", True, True),
        ("lm_head.weight", None, True),
        ("decoder.embed_tokens.weight", True, True),
        ("lm_head.weight", False, False),
        ("layers.0.weight", True, False),
        ("lm_head.bias", True, False),
        ("layers.1.attention.output.weight", True, False),
        ("embed_positions.weight", True, False),
        ("layers.0.rotary_emb.inv_freq", False, True),
        ("embeddings.position_ids", False, True),
    ],
)
def test_an_index_may_name_a_tied_copy_that_is_not_stored(tmp_path, name, tie, accepted):
    stored = {"embed_tokens.weight": weights(64, 40), "layers.1.weight": weights(40, 40)}
    files = {
        FIRST: safetensors_bytes(stored),
        SECOND: shard("norm.weight"),
        "model.safetensors.index.json": {
            "weight_map": {**dict.fromkeys([*stored, name], FIRST), "norm.weight": SECOND}
        },
    }
    model = folder(tmp_path / "model", files, {} if tie is None else {"tie_word_embeddings": tie})
    if accepted:
        assert len(ModelDirectory(model).tensors) == 3
    else:
        with pytest.raises(FormatError, match="it is not there"):
            ModelDirectory(model)


def test_an_index_may_name_the_wrong_file_of_the_set(tmp_path):
    swapped = index(one_weight=SECOND, two_weight=FIRST)
    model = folder(tmp_path / "model", {**SHARDED, "model.safetensors.index.json": swapped})
    assert {tensor.name for tensor in ModelDirectory(model).tensors} == {"one.weight", "two.weight"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"q4-00001-of-00002.gguf": b"GGUF", "q4-00002-of-00002.gguf": b"GGUF"}, "split GGUF"),
        (
            {"a-00001-of-00002.gguf": b"", "b.gguf": b"", "training_args.bin": b""},
            r"give the file itself, .*/b\.gguf",
        ),
        ({"model-q4.gguf": b"GGUF", "model-q8.gguf": b"GGUF"}, "give the file itself"),
        ({"pytorch_model.bin": b""}, "pickles"),
        ({"consolidated.00.pth": b""}, "pickles"),
        ({"tf_model.h5": b""}, "TensorFlow"),
        ({"flax_model.msgpack": b""}, "Flax"),
        ({"model.onnx": b"", "model.onnx_data": b""}, "ONNX"),
        ({"0_Transformer/model.safetensors": shard()}, "0_Transformer"),
        ({"adapter_model.safetensors": shard()}, "adapter without its base model"),
        ({"adapters.safetensors": shard(), "adapter_config.json": {}}, "adapter without"),
        (
            {"adapter_model.bin": b"", "adapter_config.json": {"base_model_name_or_path": "a/b"}},
            r"\(a/b\)",
        ),
        (
            {"adapter_model.safetensors": shard(), "pytorch_model-00001-of-00002.bin": b""},
            r"as pickles .*convert the model with transformers",
        ),
        ({"consolidated.00.pth": b""}, "program that wrote them"),
        ({"training_args.bin": b""}, "no .safetensors file"),
        ({}, "no .safetensors file"),
    ],
)
def test_a_folder_without_safetensors_is_told_what_it_is(tmp_path, files, says):
    with pytest.raises(InputError, match=says):
        ModelDirectory(folder(tmp_path / "model", files))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", FIRST, "config.json", "tokenizer.json", "2_Dense/model.safetensors"],
)
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    files = SHARDED if name == FIRST else SINGLE
    files = {**files, "modules.json": b'[{"path": "2_Dense"}]', name: POINTER}
    model = folder(tmp_path / "model", files)
    with pytest.raises(FormatError, match="Git LFS pointer") as caught:
        isotone.compress(model, tmp_path / "out", k=4)
    assert name in str(caught.value)


def test_a_pointer_among_the_companions_is_named_before_anything_is_written(tmp_path, monkeypatch):
    model = folder(tmp_path / "model", {**SINGLE, "tokenizer.model": POINTER})
    monkeypatch.setattr("isotone.pipeline.compress.plan_job", lambda *_: pytest.fail("planned"))
    with pytest.raises(FormatError, match=r"tokenizer\.model: is a Git LFS pointer"):
        isotone.compress(model, tmp_path / "out", k=4)


def test_a_pointer_in_the_place_of_a_gguf_is_named(tmp_path):
    (tmp_path / "model.gguf").write_bytes(POINTER)
    with pytest.raises(FormatError, match="Git LFS pointer"):
        isotone.compress(tmp_path / "model.gguf", tmp_path / "out", k=4)


def test_an_adapter_is_known_by_its_tensors(tmp_path):
    tensors = {f"q_proj.lora_{side}.weight": weights(64, 40) for side in "AB"}
    write_model(tmp_path / "model", tensors, config=CONFIG)
    for model in (tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        with pytest.raises(InputError, match="adapter without its base model"):
            isotone.compress(model, tmp_path / "out", k=4)
