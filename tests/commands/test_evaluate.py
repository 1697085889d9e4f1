"""What `isotone eval` refuses, each in one line that says what, where and what to do."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.builders import language_model

CONTEXT = 32


def copied(language_models, tmp_path, source="dense"):
    return shutil.copytree(getattr(language_models, source), tmp_path / "copy")


def without_tokenizer(language_models, tmp_path):
    copy = copied(language_models, tmp_path)
    for path in copy.glob("tokenizer*"):
        path.unlink()
    return copy


def with_broken_tokenizer(language_models, tmp_path):
    copy = copied(language_models, tmp_path)
    (copy / "tokenizer.json").write_text('{"model": 3}')
    return copy


def with_config(language_models, tmp_path, source="dense", **changes):
    copy = copied(language_models, tmp_path, source)
    config = json.loads((copy / "config.json").read_text())
    for key, value in changes.items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def of_another_version(language_models, tmp_path):
    return with_config(
        language_models, tmp_path, "clustered", quantization_config={"format_version": 99}
    )


def lacking_a_tensor(language_models, tmp_path):
    from safetensors.numpy import load_file, save_file

    copy = copied(language_models, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return copy


def with_a_small_vocabulary(_, tmp_path):
    return language_model.write_language_model(tmp_path / "small", vocab_size=270)


def with_another_tokenizer(_, tmp_path):
    return language_model.write_language_model(
        tmp_path / "other", language_model.tokenizer(None, 280)
    )


def written(content, name="file.txt"):
    def write(_, tmp_path):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def empty(_, tmp_path):
    return tmp_path


def dense(language_models, _):
    return language_models.dense


def text(language_models, _):
    return language_models.text


LINE = b'{"query": "a", "choices": ["b", "c"], "gold": 1}\n'

# Arguments, in which functions stand for paths; and what the one line on stderr says.
REFUSED = {
    "nothing asked": ([dense], "nothing to measure: give a text, tasks, or both"),
    "no text": ([dense, "--text", "gone.txt"], "gone.txt: no such file; expected a text"),
    "directory as text": ([dense, "--text", empty], "cannot be read: Is a directory"),
    "latin-1": ([dense, "--text", written(b"caf\xe9 au lait")], "not UTF-8 text (byte 3 is 0xe9)"),
    "short": ([dense, "--text", written(b"a model")], "tokens, fewer than one window of 32"),
    "empty": ([dense, "--text", written(b"")], "has 0 tokens, fewer than one window of 32"),
    "window of one": ([dense, "--text", text, "--context", "1"], "expected 2 tokens or more"),
    "no windows": ([dense, "--text", text, "--windows", "0"], "windows 0: expected 1 or more"),
    "long context": (
        [dense, "--text", text, "--context", "65"],
        "context 65: 65 tokens, and",
    ),
    "no tokenizer": (
        [without_tokenizer, "--text", text],
        "has no tokenizer; expected tokenizer.json",
    ),
    "broken tokenizer": ([with_broken_tokenizer, "--text", text], "tokenizer cannot be loaded"),
    "tokenizer of another": (
        [with_a_small_vocabulary, "--text", text],
        "and the model has 270; the tokenizer belongs to another model",
    ),
    "no such model": (["gone", "--text", text], "gone: no such file or directory"),
    "not a model": ([empty, "--text", text], "has no config.json; expected a model directory"),
    "a file": ([written(b"GGUF", "m.gguf"), "--text", text], "expected a model directory"),
    "other version": ([of_another_version, "--text", text], "has format version 99"),
    "unknown kind": (
        [lambda d, t: with_config(d, t, model_type="nonesuch"), "--text", text],
        "config.json: transformers cannot use it",
    ),
    "no kind": (
        [lambda d, t: with_config(d, t, model_type="vit"), "--text", text],
        "as a language model",
    ),
    "incomplete": (
        [lacking_a_tensor, "--text", text],
        "lacks 1 of the model's tensors, model.layers.1.mlp.up_proj.weight for one",
    ),
    "reference alone": (
        [dense, "--tasks", written(LINE, "q.jsonl"), "--reference", dense],
        "a reference is compared on a text",
    ),
    "reference's vocabulary": (
        [dense, "--text", text, "--reference", with_a_small_vocabulary],
        "the reference must share the model's vocabulary",
    ),
    "reference's tokenizer": (
        [dense, "--text", text, "--reference", with_another_tokenizer],
        "the reference must share the model's vocabulary",
    ),
    "dtype": ([dense, "--text", text, "--dtype", "int4"], "dtype 'int4': expected one of float32"),
    "device": ([dense, "--text", text, "--device", "abacus"], "device 'abacus': is not available"),
    "not a number": ([dense, "--text", text, "--context", "many"], "valid integer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(isotone, language_models, tmp_path, case):
    arguments, message = REFUSED[case]
    made = [item(language_models, tmp_path) if callable(item) else item for item in arguments]
    sizes = [] if "--context" in made else ["--context", CONTEXT]
    run = isotone("eval", *made, *sizes, "--json")
    assert run.code == 2, run.err
    assert run.out == ""
    assert run.err.startswith("isotone: ")
    assert run.err.count("\n") == 1, run.err
    assert message in run.err
