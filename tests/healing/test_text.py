"""Windows to train on, each once in a round, and windows that are held out."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.errors import InputError
from isotone.healing.text import MOST_HELD_OUT, split


def test_each_window_comes_once_in_each_round_and_in_another_order():
    text = split(np.arange(235), 10, "text")
    assert text.training.shape == (21, 10)
    assert text.held_out.tolist() == [list(range(210, 220)), list(range(220, 230))]
    batches = [text.batch(step, 3, seed=5) for step in range(14)]
    first, second = np.concatenate(batches[:7]), np.concatenate(batches[7:])
    assert not np.array_equal(first, second)
    for order in (first, second):
        assert np.array_equal(order[order[:, 0].argsort()], text.training)
    assert np.array_equal(batches[4], text.batch(4, 3, seed=5))
    assert not np.array_equal(first, np.concatenate([text.batch(s, 3, 6) for s in range(7)]))


def test_no_more_is_held_out_than_is_good():
    assert len(split(np.arange(10_000), 10, "text").held_out) == MOST_HELD_OUT
    other = np.zeros((3, 10), np.int64)
    with_other = split(np.arange(100), 10, "text", other)
    assert with_other.held_out is other
    assert len(with_other.training) == 10
    with pytest.raises(InputError, match=r"has 19 tokens; expected 20 or more"):
        split(np.arange(19), 10, "text")
