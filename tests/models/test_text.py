"""A text is encoded once and cut into windows: the first ones, or some spread over all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.errors import InputError
from isotone.models.text import (
    cut_windows,
    decoded,
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


@given(
    n=st.integers(0, 60),
    length=st.integers(1, 9),
    n_windows=st.integers(1, 9),
    prefix=st.lists(st.integers(100, 109), max_size=3),
)
def test_a_prefix_begins_every_window_within_its_tokens(n, length, n_windows, prefix):
    tokens, context = np.arange(n), length + len(prefix)
    windows = windows_of(tokens, context, prefix)
    assert windows.shape == (n // length, context)
    assert windows.dtype == np.int64
    assert all(window.tolist() == prefix for window in windows[:, : len(prefix)])
    assert np.array_equal(windows[:, len(prefix) :], windows_of(tokens, length))
    spread = spread_windows(tokens, context, n_windows, prefix)
    assert np.array_equal(spread[:, len(prefix) :], spread_windows(tokens, length, n_windows))


def test_a_text_that_begins_with_the_prefix_does_not_get_it_twice():
    text = np.array([7, 8, 1, 2, 3, 4, 7, 8])
    assert windows_of(text, 4, [7, 8]).tolist() == [[7, 8, 1, 2], [7, 8, 3, 4], [7, 8, 7, 8]]
    assert windows_of(text, 4, [8]).tolist() == [[8, 7, 8, 1], [8, 2, 3, 4]]


def test_a_window_that_holds_nothing_but_its_prefix_is_refused():
    with pytest.raises(InputError, match="context 2: expected 3 tokens or more"):
        cut_windows(np.arange(9), 2, 1, "text", [7, 8])
    with pytest.raises(InputError, match="9 tokens and a prefix of 1, fewer than one window of 11"):
        cut_windows(np.arange(9), 11, 1, "text", [7])
    assert cut_windows(np.arange(9), 10, 1, "text", [7]).tolist() == [[7, *range(9)]]


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


TEXT = "née\r\nLe café\rfin ☃"
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_byte_order_mark_is_not_part_of_a_text(tmp_path, encoding):
    (tmp_path / "text.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "text.txt") == "née\nLe café\nfin ☃"


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("width", [16, 32])
def test_a_byte_order_mark_says_the_order_of_bytes(width, order):
    assert decoded(("\ufeff" + TEXT).encode(f"utf-{width}-{order}")) == decoded(TEXT.encode())


@given(st.text())
def test_a_mark_changes_nothing_and_its_absence_neither(text):
    plain = decoded(text.encode("utf-8"))
    assert decoded(text.encode("utf-8-sig")) == (plain if text[:1] != "\ufeff" else text_of(text))
    assert "\r" not in plain


def text_of(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_what_a_mark_promises_and_the_bytes_are_not_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("ab".encode("utf-16") + b"!")
    with pytest.raises(InputError, match=r"text\.txt: is not UTF-16.* text \(byte \d+ is 0x21\)"):
        read_text(path)
    path.write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 5 is 0xff\)"):
        read_text(path)
