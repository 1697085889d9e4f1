"""Text from a model: the same with the same seed, and the same streamed as whole."""

from __future__ import annotations

import shutil

import pytest
import torch

from isotone.evaluation.generate import TextPieces, generate
from tests.builders import language_model
from tests.builders.seen_tokens import seen_tokens

PROMPT = "the model keeps a"


def by_hand(directory, prompt, n_tokens):
    """The likeliest token each time, by forward passes over all that came before."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32").eval()
    tokens = tokenizer(prompt)["input_ids"]
    n_prompt = len(tokens)
    while len(tokens) < n_prompt + n_tokens and tokens[-1] != tokenizer.eos_token_id:
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokenizer.decode(tokens[n_prompt:], skip_special_tokens=True), len(tokens) - n_prompt


def test_greedy_text_is_that_of_the_likeliest_tokens(language_models):
    found = generate(language_models.clustered, PROMPT, max_tokens=12)
    assert (found.text, found.n_tokens) == by_hand(language_models.restored, PROMPT, 12)
    assert found.n_prompt_tokens == len(language_model.tokenizer()(PROMPT)["input_ids"])


def test_a_seed_decides_what_is_drawn(language_models):
    def drawn(seed):
        return generate(
            language_models.dense, PROMPT, max_tokens=20, temperature=2.0, seed=seed
        ).text

    state = torch.random.get_rng_state()
    assert drawn(1) == drawn(1) != drawn(2)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's generator was touched"


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_pieces_join_to_the_whole(language_models, temperature):
    heard = []
    found = generate(
        language_models.dense,
        PROMPT,
        max_tokens=40,
        temperature=temperature,
        seed=5,
        listener=heard.append,
    )
    assert "".join(heard) == found.text
    assert len(heard) > 1


TEXTS = ["the model", "é☃ é", "☃", "", "a\nweight \n\n7", "naïve 模型 🙂🙂 in", "\ufffd"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_character_in_several_tokens_comes_whole(text):
    tokenizer = language_model.tokenizer()
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = TextPieces(tokenizer)
    pieces.put(torch.tensor([[1, 2, 3]]))  # the prompt
    for token in tokens:
        pieces.put(torch.tensor([token]))
        assert text.startswith("".join(pieces.pieces))
    pieces.end()
    assert "".join(pieces.pieces) == text


def test_a_character_cut_off_comes_as_the_tokenizer_shows_it():
    tokenizer = language_model.tokenizer()
    half = tokenizer("🙂", add_special_tokens=False)["input_ids"][:2]
    pieces = TextPieces(tokenizer)
    pieces.put(torch.tensor([[1]]))
    for token in half:
        pieces.put(torch.tensor([token]))
    assert pieces.pieces == []
    pieces.end()
    assert "".join(pieces.pieces) == tokenizer.decode(half)


# The command line


def test_the_terminal_shows_what_json_says(isotone, language_models):
    arguments = "generate", language_models.clustered, PROMPT, "--max-tokens", 20
    shown, told = isotone(*arguments), isotone(*arguments, "--json")
    assert shown.code == told.code == 0, shown.err + told.err
    assert shown.out == told.json["text"] + "\n"
    assert told.out.count("\n") == 1
    assert told.json["n_tokens"] <= 20


def test_a_chat_turn_goes_through_the_template(isotone, tmp_path):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    tokenizer = language_model.tokenizer(template)
    directory = language_model.write_language_model(tmp_path / "chat", tokenizer)
    chat = isotone("generate", directory, "a rank", "--chat", "--max-tokens", 9, "--json")
    plain = isotone("generate", directory, "user: a rank\nassistant:", "--max-tokens", 9, "--json")
    assert chat.code == 0, chat.err
    assert chat.json["n_prompt_tokens"] == plain.json["n_prompt_tokens"]
    assert chat.json["text"] == plain.json["text"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--chat"], "has no chat template; leave out --chat"),
        ([""], "the prompt is empty"),
        (["a", "--max-tokens", "0"], "max tokens 0: expected 1 or more"),
        (["a", "--max-tokens", "64"], "65 tokens, and"),
        (["a", "--temperature", "-1"], "temperature -1.0: expected 0 or more"),
        (["a", "--temperature", "nan"], "temperature nan: expected 0 or more"),
        (["a", "--max-tokens", "3", "--dtype", "int4"], "dtype 'int4': expected one of"),
        ([], "Missing argument 'PROMPT'"),
    ],
)
def test_bad_input_is_refused_in_one_line(isotone, language_models, arguments, message):
    run = isotone("generate", language_models.dense, *arguments)
    assert run.code == 2, run.err
    assert run.out == ""
    assert run.err.count("\n") == 1
    assert message in run.err


def test_a_model_without_tokenizer(isotone, language_models, tmp_path):
    copy = shutil.copytree(language_models.dense, tmp_path / "copy")
    (copy / "tokenizer.json").unlink()
    run = isotone("generate", copy, PROMPT)
    assert run.code == 2
    assert "has no tokenizer; expected tokenizer.json" in run.err


def prompt_of(directory, prompt, **options):
    """The tokens of the prompt as the model reads them."""
    with seen_tokens() as seen:
        generate(directory, prompt, max_tokens=2, **options)
    return seen[0][0].tolist()


def test_a_prompt_begins_with_the_prefix_once_and_ends_with_itself(tmp_path):
    """What a tokenizer puts behind a text would end the text before it has begun."""
    template = "{{ bos_token }}{{ messages[0]['content'] }}"
    tokenizer = language_model.tokenizer(
        template, before=("<s>",), after=("<end>",), bos_token="<s>"
    )
    directory = language_model.write_language_model(tmp_path / "model", tokenizer)
    expected = [tokenizer.bos_token_id, *tokenizer(PROMPT, add_special_tokens=False)["input_ids"]]
    assert prompt_of(directory, PROMPT) == expected
    assert prompt_of(directory, f"<s>{PROMPT}") == expected
    assert prompt_of(directory, PROMPT, chat=True) == expected
