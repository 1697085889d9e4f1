"""Commands other than inspect take a codebook-only directory, or say why they do not."""

from __future__ import annotations

import pytest

from isotone.errors import InputError
from isotone.pipeline.compress import compress
from tests.builders.checkpoints import tree
from tests.builders.overlays import make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Not to be changed."""
    return make_pair(tmp_path_factory.mktemp("pair"))


def test_verify_and_decompress(pair, isotone, tmp_path):
    run = isotone("verify", pair.healed, "--json")
    assert (run.code, run.json["ok"], run.json["n_files"]) == (0, True, 8)
    assert isotone("verify", pair.healed, "--against", pair.model).code == 0
    assert "is whole (5 tensors, 8 files)" in isotone("verify", pair.healed).out
    assert isotone("decompress", pair.healed, tmp_path / "dense").code == 0
    assert "isotone.json" not in tree(tmp_path / "dense")
    run = isotone("decompress", pair.healed, pair.healed / "dense")
    assert (run.code, "is the model itself or lies in it" in run.err) == (2, True)


def test_it_cannot_be_compressed(pair, tmp_path):
    with pytest.raises(InputError, match="is quantized already"):
        compress(pair.healed, tmp_path / "out")


def test_a_decompression_is_not_taken_up_with_another_base(pair, tmp_path, monkeypatch):
    """What an interrupted run left belongs to the digest of the codebook-only directory."""
    from isotone.checkpoint.staging.local import LocalStaging

    def stop(_):
        raise KeyboardInterrupt

    out = tmp_path / "dense"
    for directory in (pair.base, pair.healed):
        with monkeypatch.context() as patch:
            patch.setattr(LocalStaging, "publish", stop)
            with pytest.raises((KeyboardInterrupt, InputError)) as stopped:
                __import__("isotone").decompress(directory, out)
    assert "holds unfinished work" in str(stopped.value)
