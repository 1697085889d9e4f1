"""A text is encoded once and cut into windows: the first ones, or some spread over all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.errors import InputError
from isotone.models.text import (
    cut_windows,
    encode,
    read_text,
    read_text_file,
    spread_windows,
    windows_of,
)
from tests.builders import language_model


def test_windows_are_the_whole_text_cut_without_special_tokens():
    tokenizer, text = language_model.tokenizer(), language_model.text()
    tokens = encode(tokenizer, text)
    assert tokenizer.decode(tokens) == text
    cut = cut_windows(tokens, 10, 7, "text")
    assert cut.shape == (7, 10)
    assert np.array_equal(cut.flatten(), tokens[:70])


@given(n=st.integers(0, 60), context=st.integers(1, 9), n_windows=st.integers(1, 9))
def test_spread_windows_are_some_of_all_from_the_first_on(n, context, n_windows):
    tokens = np.arange(n)
    spread, every = spread_windows(tokens, context, n_windows), windows_of(tokens, context)
    assert spread.shape == (min(n_windows, n // context), context)
    starts = spread[:, 0].tolist()
    assert starts == sorted(set(starts))
    assert set(starts) <= set(every[:, 0].tolist())
    assert starts[:1] == every[:1, 0].tolist()


def test_a_text_shorter_than_a_window_has_none_to_cut():
    with pytest.raises(InputError, match="has 9 tokens, fewer than one window of 10"):
        cut_windows(np.arange(9), 10, 1, "text")
    assert len(windows_of(np.arange(9), 10)) == 0


def test_every_machine_has_the_builtin_text():
    text = read_text("builtin")
    assert len(text) > 200_000
    assert "assert" in text


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt: is not UTF-8 text \(byte 0 is 0xe9\)"):
        read_text(tmp_path / "latin.txt")
    with pytest.raises(InputError, match="cannot be read: Is a directory; expected a novel"):
        read_text_file(tmp_path, "a novel")
    with pytest.raises(InputError, match="no such file; expected a text, or 'builtin'"):
        read_text(tmp_path / "none")
