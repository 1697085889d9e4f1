"""What `isotone heal` refuses, before anything is written."""

from __future__ import annotations

import shutil

import pytest

from isotone.errors import InputError
from isotone.healing.settings import HealSettings
from tests.builders import language_model
from tests.builders.healings import healed

REFUSED = {
    "dense": (lambda m: {"directory": m.dense}, "is dense; expected what isotone compress wrote"),
    "no teacher": (lambda _: {"text": "self", "teacher": None}, "which a teacher writes"),
    "no such text": (lambda m: {"text": m.text.parent / "none.txt"}, "no such file"),
    "long": (lambda _: {"context": 65}, "65 tokens, and .* takes at most 64"),
    "short": (lambda _: {"context": 1}, "expected 2 tokens or more"),
    "part": (lambda _: {"train": ("codebook", "bias")}, "expected some of codebook,scale,norm"),
    "nothing": (lambda _: {"train": ()}, "expected some of"),
    "no scale": (lambda _: {"train": ("scale",)}, "names 'scale', and this model has no scales"),
    "order": (lambda _: {"order": "loose"}, "expected keep or free"),
    "steps": (lambda _: {"settings": HealSettings(steps=0)}, "steps is 0; expected 1 or more"),
    "rate": (lambda _: {"settings": HealSettings(learning_rate=1.5)}, "learning_rate is 1.5"),
    "seed": (lambda _: {"settings": HealSettings(seed=-1)}, "seed is -1"),
    "dtype": (lambda _: {"dtype": "float16"}, "too small for float16"),
    "device": (lambda _: {"device": "mps"}, "has no float64"),
    "held out": (lambda _: {"held_out": "self"}, "the teacher writes for training"),
    "patience": (lambda _: {"settings": HealSettings(patience=-1)}, "patience is -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(models, tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        healed(models, tmp_path / "out", **changes(models))
    assert not list(tmp_path.iterdir()), "the corrected command would be refused"


def test_a_teacher_with_another_vocabulary_is_refused(models, tmp_path):
    other = language_model.write_language_model(
        tmp_path / "other", language_model.tokenizer(n_tokens=280)
    )
    with pytest.raises(InputError, match="must share the model's vocabulary"):
        healed(models, tmp_path / "out", teacher=other)


def test_bad_input_is_one_line_and_exit_code_two(models, tmp_path, isotone):
    run = isotone("heal", models.dense, tmp_path / "out", "--text", "builtin")
    assert (run.code, run.out, len(run.err.splitlines())) == (2, "", 1)


def test_the_teacher_is_not_written_over(models, tmp_path):
    copy = shutil.copytree(models.dense, tmp_path / "dense")
    with pytest.raises(InputError, match="is the model itself or lies in it"):
        healed(models, copy / "out", teacher=copy)
