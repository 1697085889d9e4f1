"""Names that count the files of a set: what is missing is known by what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.checkpoint.files.numbered import (
    NumberedName,
    missing_names,
    one_of_each_set,
    same_set,
)

SPELLINGS = (
    "model-{:05}-of-{:05}.safetensors",
    "model-{:05}-of-{:06}.safetensors",
    "model.fp16-{}-of-{}.safetensors",
    "weights_{:02}_of_{:02}.bf16.safetensors",
    "llama-q4-{:05}-of-{:05}.gguf",
)


@given(st.sampled_from(SPELLINGS), st.integers(1, 12), st.sets(st.integers(1, 12)), st.booleans())
def test_what_is_missing_and_what_is_there_are_the_set(spelling, total, gone, from_zero):
    # Of a set that starts at 0 the file 0 has to be there, else it counts as one that starts at 1.
    names = [spelling.format(number - from_zero, total) for number in range(1, total + 1)]
    there = [name for i, name in enumerate(names) if i + 1 not in gone or (from_zero and i == 0)]
    missing, n_missing = missing_names(there)
    assert n_missing == (total - len(there) if there else 0)
    assert missing == ([name for name in names if name not in there][:4] if there else [])
    assert all(same_set(name, [*there, "other.safetensors"]) == sorted(there) for name in there)
    assert one_of_each_set(there) == there[:1]


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-00001.safetensors",
        "of-the-sea.gguf",
        "1-of-2.json",
        f"m-1-of-{9**999}.gguf",
    ],
)
def test_other_names_count_nothing(name):
    assert NumberedName.parse(name) is None
    assert same_set(name, ["a", name]) == [name]
    assert missing_names([name]) == ([], 0)


def test_a_huge_total_is_counted_and_not_listed():
    names, n_missing = missing_names(["model-1-of-999999999.safetensors"])
    assert n_missing == 10**9 - 2
    assert len(names) == 4
