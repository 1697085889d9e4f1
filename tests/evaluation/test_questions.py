"""Files of multiple-choice questions: what is read, and what is refused by its line."""

from __future__ import annotations

import pytest

from isotone.errors import InputError
from isotone.evaluation.questions import read_questions

LINE = b'{"query": "a", "choices": ["b", "c"], "gold": 1}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"[1]", "is not a JSON object"),
        (b'{"query": "", "choices": ["b", "c"], "gold": 1}', "\"query\" is ''"),
        (b'{"choices": ["b", "c"], "gold": 1}', '"query" is None'),
        (b'{"query": "a", "choices": ["b"], "gold": 0}', "expected two texts or more"),
        (b'{"query": "a", "choices": ["b", ""], "gold": 0}', "expected two texts or more"),
        (b'{"query": "a", "choices": "bc", "gold": 0}', "expected two texts or more"),
        (b'{"query": "a", "choices": ["b", "c"], "gold": 2}', "expected an index from 0 to 1"),
        (b'{"query": "a", "choices": ["b", "c"], "gold": true}', "expected an index from 0 to 1"),
    ],
)
def test_a_bad_question_is_named_by_its_line(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_bytes(LINE + b"\n" + line + b"\n" + LINE)
    with pytest.raises(InputError, match=r"q\.jsonl: line 3") as refused:
        read_questions(path)
    assert message in str(refused.value)


def test_questions_are_lines_by_newline_only(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "a\u2028b", "choices": ["c", "d"], "gold": 0}\n\n', "utf-8")
    assert read_questions(path) == [{"query": "a\u2028b", "choices": ["c", "d"], "gold": 0}]


def test_a_file_without_questions(tmp_path):
    (tmp_path / "q.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no question"):
        read_questions(tmp_path / "q.jsonl")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_part_of_the_first_question(tmp_path, encoding):
    path = tmp_path / "q.jsonl"
    path.write_bytes(LINE.decode().encode(encoding))
    assert read_questions(path) == [{"query": "a", "choices": ["b", "c"], "gold": 1}]
