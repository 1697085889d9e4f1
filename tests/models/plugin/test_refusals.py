"""Directories that transformers cannot load are refused in one line."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone
from isotone.errors import FormatError, InputError
from isotone.models.plugin import loading
from isotone.models.plugin.quantizer import IsotoneQuantizer


@pytest.fixture
def damaged(roundtrips, tmp_path):
    """A copy of a compressed directory to damage."""
    import shutil

    _, out, _ = roundtrips("llama-tied")
    shutil.copytree(out, tmp_path / "copy")
    return tmp_path / "copy"


def load(directory, **options):
    return AutoModelForCausalLM.from_pretrained(directory, **options)


def assert_one_line(refused):
    assert "\n" not in str(refused.value)


def test_another_format_version(damaged):
    config = json.loads((damaged / "config.json").read_text())
    config["quantization_config"]["format_version"] = 99
    (damaged / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match="format version 99; this isotone reads") as refused:
        load(damaged)
    assert_one_line(refused)


@pytest.mark.parametrize("residency", ["dense", "packed"])
def test_a_damaged_index(damaged, residency):
    """A byte of a packed array's header is another one."""
    shard = damaged / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[content.index(b"ISOT") + 8] ^= 1
    shard.write_bytes(content)
    config = isotone.IsotoneConfig(residency=residency)
    with pytest.raises(FormatError, match=r"model\.safetensors") as refused:
        load(damaged, quantization_config=config)
    assert_one_line(refused)


def test_a_shard_of_another_length(damaged):
    shard = damaged / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(FormatError, match="truncated") as refused:
        load(damaged)
    assert_one_line(refused)


def test_a_missing_shard(damaged):
    (damaged / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load(damaged)


def test_a_missing_manifest(damaged):
    (damaged / "isotone.json").unlink()
    with pytest.raises(InputError, match=r"has no isotone\.json") as refused:
        load(damaged)
    assert_one_line(refused)


def test_offloading_to_disk(roundtrips, tmp_path):
    _, out, _ = roundtrips("llama-tied")
    places = {"model": "cpu", "lm_head": "disk"}
    with pytest.raises(InputError, match="to disk") as refused:
        load(out, device_map=places, offload_folder=tmp_path)
    assert_one_line(refused)


def test_quantising_on_the_fly(roundtrips):
    dense, *_ = roundtrips("llama-tied")
    with pytest.raises(InputError, match="isotone compress MODEL OUT") as refused:
        load(dense, quantization_config=isotone.IsotoneConfig())
    assert_one_line(refused)


def test_another_residency():
    with pytest.raises(InputError, match="expected dense or packed"):
        isotone.IsotoneConfig(residency="sparse")


def test_a_transformers_that_loads_otherwise(monkeypatch, roundtrips):
    from transformers import PreTrainedModel

    _, out, _ = roundtrips("llama-tied")
    changed = staticmethod(lambda _model, _files: None)
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", changed)
    with pytest.raises(InputError, match=r"transformers \d.*does not know"):
        load(out)


def test_interception_happens_once(roundtrips):
    from transformers import PreTrainedModel

    _, out, _ = roundtrips("llama-tied")
    load(out)
    before = vars(PreTrainedModel)["_load_pretrained_model"]
    loading.intercept_loading(IsotoneQuantizer)
    assert vars(PreTrainedModel)["_load_pretrained_model"] is before


def test_other_models_load_as_ever(roundtrips):
    dense, *_ = roundtrips("llama-tied")
    assert load(dense).dtype == torch.bfloat16
