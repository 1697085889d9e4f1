"""The windows of a text that a model is calibrated by."""

from __future__ import annotations

import pytest

from isotone.calibration.text import CONTEXT, N_WINDOWS, calibration_text
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.engine.progress import Silent
from isotone.errors import InputError
from isotone.models.prefix import Prefix
from tests.builders import language_model

LONGEST = language_model.MAX_POSITIONS


def windows(dense, path, prefix):
    names = tuple(map(str, prefix))
    return calibration_text(ModelDirectory(dense), str(path), Prefix(prefix, names), Silent())


@pytest.mark.parametrize("prefix", [(), (299,), (299, 298)], ids=len)
def test_windows_hold_the_prefix_within_the_models_positions(dense, text, prefix):
    found = windows(dense, text, prefix)
    assert found.shape == (N_WINDOWS, min(CONTEXT, LONGEST))
    assert (found[:, : len(prefix)] == prefix).all()
    tokens = language_model.tokenizer()(text.read_text("utf-8"))["input_ids"]
    assert found[0, len(prefix) :].tolist() == tokens[: LONGEST - len(prefix)]


@pytest.mark.parametrize("said", ["", "<end>"])
@pytest.mark.parametrize("prefix", [(), (0,)], ids=len)
def test_a_short_text_is_two_windows(dense, tmp_path, prefix, said):
    """One of them is held out; that is so where the text begins with the prefix (`<end>`) too."""
    (tmp_path / "text.txt").write_text(said + " the" * 10, "utf-8")
    found = windows(dense, tmp_path / "text.txt", prefix)
    assert len(found) == 2
    assert (found[:, : len(prefix)] == prefix).all()
    (tmp_path / "text.txt").write_text(said + " the" * 3, "utf-8")
    with pytest.raises(InputError, match=r"has \d+ tokens; expected 16 or more"):
        windows(dense, tmp_path / "text.txt", prefix)
