"""Whatever transformers raises becomes one line that says what failed, why, and what to do."""

from __future__ import annotations

import sys

import pytest
from transformers.utils import logging

from isotone.errors import FormatError, InputError, MissingExtraError
from isotone.models.transformers_calls import (
    one_line,
    quiet_transformers,
    require_transformers,
    transformers_errors,
)


def test_an_error_becomes_one_line_and_ours_pass():
    refused = pytest.raises(InputError, match=r"^config: cannot be used: bad; ask$")
    with refused, transformers_errors("config: cannot be used", "ask"):
        raise ValueError("bad\nvery bad")
    with pytest.raises(FormatError, match=r"^ours$"), transformers_errors("config"):
        raise FormatError("ours")


def test_a_model_that_needs_its_own_code_is_told_what_works_without():
    refused = pytest.raises(InputError, match=r"^config: it asks for code of its own .*verify")
    with refused, transformers_errors("config", "ask"):
        raise ValueError("custom code which must be executed\npass `trust_remote_code=True`")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(""), "ValueError"),
        (KeyError("llama"), "KeyError: 'llama'"),
        (OSError("no file\nhere"), "no file"),
        (RuntimeError("these are wrong:\n  heads\n  widths"), "these are wrong: heads"),
    ],
)
def test_one_line(error, line):
    assert one_line(error) == line


def test_silence_ends_with_an_exception():
    level = logging.get_verbosity()

    def inside():
        with quiet_transformers():
            assert logging.get_verbosity() == logging.ERROR
            assert not logging.is_progress_bar_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        inside()
    assert logging.get_verbosity() == level
    assert logging.is_progress_bar_enabled()


def test_a_missing_package_names_the_extra(monkeypatch):
    require_transformers("it")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"^reading needs .*isotone\[models\]"):
        require_transformers("reading")
