"""A model that brings Python code: it is compressed, and nothing ever runs the code."""

from __future__ import annotations

import pytest

from tests.builders.checkpoints import tree, weights, write_model

CONFIG = {
    "model_type": "unheard-of",
    "architectures": ["OwnModel"],
    "vocab_size": 64,
    "auto_map": {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnModel",
    },
}
CODE = b"import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = dict.fromkeys(("configuration_own.py", "modeling_own.py"), CODE)
    companions = {"tokenizer.json": b"{}", **code}
    tensors = {"layer.weight": weights(64, 40), "embed.weight": weights(64, 40)}
    (tmp_path / "text.txt").write_text("a text " * 100)
    return write_model(tmp_path / "own", tensors, config=CONFIG, companions=companions)


def test_it_is_compressed_without_its_code_being_run(own, isotone):
    assert isotone("compress", own, "out", "--k", "4").code == 0
    assert isotone("verify", "out", "--against", own).code == 0
    assert isotone("inspect", "out").code == 0
    assert isotone("decompress", "out", "dense").code == 0
    assert tree("dense")["modeling_own.py"] == CODE
    assert not list(own.parent.rglob("ran"))


@pytest.mark.parametrize(
    "command",
    [
        "compress own new --calibrate self",
        "calibrate own new --text text.txt",
        "eval own --text text.txt",
        "eval out --text text.txt",
        "generate out hello",
        "heal out new --text text.txt",
        "compress own new --dry-run --nodes 2 --engine ray",
    ],
)
def test_what_runs_the_model_is_refused_in_one_line(own, isotone, command):
    isotone("compress", own, "out", "--k", "4")
    if "--dry-run" in command:
        (own / "model.safetensors").unlink()
    run = isotone(*command.split())
    assert run.code == 2, run
    assert run.err.count("\n") == 1
    assert "asks for code of its own" in run.err
    assert not list(own.parent.rglob("ran"))
