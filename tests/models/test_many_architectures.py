"""Two dozen architectures, saved in the ways people do: what is loaded is what isotone decodes.

The reference is a folder of plain safetensors with the weights that isotone's own decoding gives,
which transformers loads without any of isotone's code.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from isotone.models.plugin.config import IsotoneConfig
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders import architectures as ways
from tests.builders import second_reader
from tests.builders.loaded_models import assert_equal, load

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # that PEFT asks for it
)

SAVED = {
    "llama": [ways.with_copies, ways.with_an_adapter_beside],
    "llama-untied": [ways.in_shards, ways.without_prefix],
    "gpt2": [ways.without_the_key, ways.without_prefix],
    "gpt-neox": [ways.in_shards],
    "opt": [ways.without_the_key],
    "bloom": [ways.without_prefix],
    "falcon": [ways.with_copies],
    "phi": [ways.in_one_file],
    "gemma2": [ways.without_the_key],
    "gemma3": [ways.in_shards, ways.with_copies],
    "qwen2": [ways.from_its_base],
    "qwen3-moe": [ways.in_shards],
    "mixtral": [ways.in_one_file],
    "deepseek": [ways.in_shards],
    "t5": [ways.with_copies, ways.without_the_key],
    "bart": [ways.with_copies],
    "marian": [ways.in_one_file, ways.without_the_key],
    "whisper": [ways.with_copies],
    "mamba": [ways.with_copies],
    "rwkv": [ways.with_copies],
    "bert": [ways.with_old_names, ways.with_copies],
    "roberta": [ways.from_its_base],
    "clip": [ways.in_shards],
    "chinese-clip": [ways.in_one_file],
    "ctrl": [ways.with_copies],
    "llava": [ways.in_one_file, ways.with_copies],
}
CASES = [(kind, way) for kind, listed in SAVED.items() for way in listed]


@pytest.mark.parametrize(("kind", "way"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_every_parameter_is_what_was_decoded(kind, way, tmp_path):
    original, out, plain = tmp_path / "model", tmp_path / "out", tmp_path / "plain"
    model = ways.make_model(kind)
    way(model, original)
    compress(original, out, bits=3.5, workers=1)
    assert verify(out, against=original).ok
    decompress(out, plain)
    tensors = tensors_in(plain)
    assert_decoded(tensors, tensors_in(original), out)

    _, expected = load(type(model), original)
    reference, info = load(type(model), plain)
    assert info == expected
    for residency in ("dense", "packed"):
        loaded, info = load(type(model), out, IsotoneConfig(residency=residency))
        assert info == expected
        assert_equal(loaded, reference, except_for=expected["missing_keys"])
    base, info = load(AutoModel, out)
    reference, expected = load(AutoModel, plain)
    assert info == expected
    assert_equal(base, reference, except_for=expected["missing_keys"])


def tensors_in(directory):
    return {
        k: t for file in directory.glob("model*.safetensors") for k, t in load_file(file).items()
    }


def assert_decoded(tensors, source, directory):
    """Every tensor is what a second reader of the format finds, or what it was if unclustered."""
    read = second_reader.read_directory(directory)
    assert tensors.keys() == source.keys() == read.keys()
    manifest = json.loads((directory / "isotone.json").read_text())
    clustered = {record["name"] for record in manifest["clustered"]}
    clustered |= {each["name"] for each in manifest["kept"] if each["tied_to"] in clustered}
    assert clustered
    for name, (_, array) in read.items():
        assert torch.equal(tensors[name], torch.from_numpy(array.copy())), name
        assert name in clustered or torch.equal(tensors[name], source[name]), name
