"""Chat templates as models come with them: several, refusing, or reading a list of parts."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from isotone.errors import InputError
from isotone.evaluation.chat import render_chat
from isotone.evaluation.generate import generate
from isotone.models.language_model.files import open_files
from tests.builders import language_model

PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
PARTS = (
    "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endfor %}"
)
REFUSING = "{{ raise_exception('a system message has to come first') }}"


@pytest.fixture
def files(tmp_path):
    """Writes a model whose tokenizer has some template, and opens it."""

    def write(template):
        tokenizer = language_model.tokenizer(template)
        return open_files(language_model.write_language_model(tmp_path / "model", tokenizer))

    return write


@pytest.mark.parametrize("template", [PLAIN, PARTS])
def test_the_prompt_is_written_out_whatever_form_the_template_reads(files, template):
    assert render_chat(files(template), " the model ", None).startswith("<user>")
    assert "the model" in render_chat(files(template), " the model ", None)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (REFUSING, "a system message has to come first"),
        ("{% for m in messages %}<{{ m['role'] }}>{% endfor %}", "leaves the prompt out"),
        ("{{ messages[0].nothing.at.all }}", "no attribute"),
        ("{% for %}", "template"),
        (None, "no chat template"),
    ],
)
def test_a_template_that_gives_no_prompt_is_named_in_one_line(files, template, reason):
    with pytest.raises(InputError, match=reason) as caught:
        render_chat(files(template), "the model", None)
    assert "--chat" in str(caught.value)


def test_one_of_several_templates_is_chosen_by_name(files):
    several = files({"tools": REFUSING, "plain": PLAIN})
    with pytest.raises(InputError, match="--template: plain, tools"):
        render_chat(several, "the model", None)
    assert render_chat(several, "the model", "plain") == "<user>the model"
    with pytest.raises(InputError, match="'other'"):
        render_chat(several, "the model", "other")


def test_the_default_one_of_several_templates_needs_no_name(files):
    several = files({"default": PLAIN, "tools": REFUSING})
    assert render_chat(several, "the model", None) == "<user>the model"


def test_the_answer_is_that_of_transformers(tmp_path):
    dense = language_model.write_language_model(
        tmp_path / "model", language_model.tokenizer({"a": PLAIN, "b": REFUSING})
    )
    tokenizer = AutoTokenizer.from_pretrained(dense)
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "the model"}],
        chat_template="a",
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    found = generate(dense, "the model", template="a", max_tokens=1)
    assert found.n_prompt_tokens == expected.shape[1]


@pytest.mark.parametrize("ends", [[0, 5], [5, 0], 0, None])
@pytest.mark.parametrize("place", ["config.json", "generation_config.json"])
def test_any_of_several_end_tokens_ends_the_text(language_models, tmp_path, ends, place):
    copy = shutil.copytree(language_models.dense, tmp_path / "copy")
    (copy / "generation_config.json").unlink()
    settings = json.loads((copy / "config.json").read_text("utf-8"))
    settings.pop("eos_token_id", None)
    (copy / "config.json").write_text(json.dumps(settings), "utf-8")
    own = settings if place == "config.json" else {}
    (copy / place).write_text(json.dumps(own | {"eos_token_id": ends}), "utf-8")
    model = AutoModelForCausalLM.from_pretrained(copy, dtype="float32").eval()
    tokens = AutoTokenizer.from_pretrained(copy)("the model keeps a")["input_ids"]
    n_prompt, last = len(tokens), [ends] if isinstance(ends, int) else ends or []
    while len(tokens) < n_prompt + 12 and not (len(tokens) > n_prompt and tokens[-1] in last):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert generate(copy, "the model keeps a", max_tokens=12).n_tokens == len(tokens) - n_prompt
