"""What a tokenizer puts before every text is found by asking it, not by reading its settings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import LlamaConfig, PreTrainedTokenizerFast

from isotone.errors import InputError
from isotone.models.prefix import Prefix, check_same_prefix, find_prefix, shown, tokenizer_prefix
from tests.builders import language_model


def files_with(tokenizer, name="model", **config):
    """What `find_prefix` takes of a model."""
    named = {"bos_token_id": None, "eos_token_id": None} | config
    return SimpleNamespace(name=name, tokenizer=tokenizer, config=LlamaConfig(**named))


@pytest.mark.parametrize("after", [(), ("<end>",), ("<sep>", "<end>")], ids=len)
@pytest.mark.parametrize("before", [(), ("<s>",), ("<mask>", "<s>")], ids=len)
def test_the_prefix_is_what_comes_before_and_not_what_comes_behind(before, after):
    tokenizer = language_model.tokenizer(before=before, after=after)
    found = find_prefix(files_with(tokenizer))
    assert found.names == before
    assert found.tokens == tuple(tokenizer.convert_tokens_to_ids(list(before)))
    whole = tokenizer("the model")["input_ids"]
    bare = tokenizer("the model", add_special_tokens=False)["input_ids"]
    assert whole[: len(before) + len(bare)] == [*found.tokens, *bare]


@pytest.mark.parametrize("said", [True, False])
def test_a_setting_counts_only_where_it_has_an_effect(said):
    """`add_bos_token` in a tokenizer's files is what many tools read, and it may be ignored."""
    tokenizer = language_model.tokenizer(before=("<s>",), bos_token="<s>")
    tokenizer.init_kwargs["add_bos_token"] = said
    assert find_prefix(files_with(tokenizer)).names == ("<s>",)
    tokenizer.add_bos_token = said  # this one has an effect
    assert find_prefix(files_with(tokenizer)).names == (("<s>",) if said else ())


@pytest.mark.parametrize("words", [["yes", "z"], ["<s>", "yes"]])
def test_a_vocabulary_of_few_words_can_be_asked(words):
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*words, "<s>"]))}
    core = Tokenizer(WordLevel(vocabulary))  # with no token for unknown words
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")
    with pytest.raises(Exception, match="WordLevel error"):
        tokenizer("x")
    assert tokenizer_prefix(tokenizer, "model") == (vocabulary["<s>"],)


@pytest.mark.parametrize("template", ["<s> $A", "$A <s>"])
def test_one_token_for_the_beginning_the_end_and_the_unknown_is_told_apart(template):
    vocabulary = {"<s>": 0, "yes": 1}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<s>"))
    core.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0)]
    )
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<s>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    assert tokenizer("x")["input_ids"] == [0, 0]
    assert tokenizer_prefix(tokenizer, "model") == ((0,) if template.startswith("<s>") else ())


def test_a_choice_overrules_the_tokenizer():
    adds = language_model.tokenizer(before=("<s>",), bos_token="<s>")
    has = language_model.tokenizer(bos_token="<s>")
    lacks = language_model.tokenizer()
    number = has.bos_token_id
    assert find_prefix(files_with(adds), "no") == Prefix()
    assert find_prefix(files_with(has)) == Prefix()
    assert find_prefix(files_with(has), "yes") == Prefix((number,), ("<s>",))
    assert find_prefix(files_with(lacks, bos_token_id=7), "yes").tokens == (7,)
    assert find_prefix(files_with(lacks, bos_token_id=310), "yes").names == ("token 310",)
    with pytest.raises(InputError, match="names a beginning-of-sequence token"):
        find_prefix(files_with(lacks), "yes")
    with pytest.raises(InputError, match="'on': expected auto, yes or no"):
        find_prefix(files_with(has), "on")


def test_where_the_tokenizer_adds_more_than_one_token_yes_is_its_own_rule():
    two = language_model.tokenizer(before=("<mask>", "<s>"), bos_token="<s>")
    assert find_prefix(files_with(two), "yes").names == ("<mask>", "<s>")


def test_a_tokenizer_that_changes_the_text_itself_is_refused():
    class Odd:
        all_special_ids = ()

        def __call__(self, text, add_special_tokens=True):  # noqa: ARG002
            return {"input_ids": [1, 2] if add_special_tokens else [3]}

        def __len__(self):
            return 4

    with pytest.raises(InputError, match=r"odd: its tokenizer encodes 'x' as \[3\] without"):
        tokenizer_prefix(Odd(), "odd")


def test_two_models_that_begin_texts_otherwise_are_not_compared():
    adds = files_with(language_model.tokenizer(before=("<s>",), bos_token="<s>"), "one")
    has = files_with(language_model.tokenizer(bos_token="<s>"), "other")
    with pytest.raises(
        InputError, match=r"other: .* begins a text with no special token, and that of one"
    ):
        check_same_prefix(adds, has, "auto")
    for choice in ("yes", "no"):
        check_same_prefix(adds, has, choice)


def test_a_prefix_is_shown_by_its_tokens():
    assert shown(("<mask>", "<s>")) == "<mask> <s>"
    assert shown(()) == "no special token"
