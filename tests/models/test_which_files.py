"""The files that are taken are those that transformers resolves, whatever lies beside them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_utils import _get_resolved_checkpoint_files

from isotone.checkpoint.source.weight_files import find_weight_files
from isotone.errors import InputError

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = {"metadata": {}, "weight_map": dict(zip("ab", SHARDS, strict=True))}
FILES = {
    "model.safetensors": None,
    "model.safetensors.index.json": INDEX,
    "consolidated.safetensors": None,
    "model.fp16.safetensors": None,
    "adapter_model.safetensors": None,
    "pytorch_model.bin": None,
    "pytorch_model.bin.index.json": {"metadata": {}, "weight_map": {"a": "pytorch_model-1.bin"}},
}


def of_transformers(directory, named):
    """The names that transformers would load; empty where it finds nothing."""
    try:
        paths, _ = _get_resolved_checkpoint_files(
            directory, None, None, None, {}, False, transformers_explicit_filename=named
        )
    except OSError:
        return []
    return sorted(Path(path).name for path in paths)


@given(st.sets(st.sampled_from(sorted(FILES))), st.booleans())
def test_they_are_those_of_transformers(present, names_one):
    named = "model.fp16.safetensors" if names_one and "model.fp16.safetensors" in present else None
    config = {"transformers_weights": named} if named else {}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for name in {*present, *SHARDS}:
            (directory / name).write_text(json.dumps(FILES.get(name)))
        wanted = of_transformers(directory, named)
        try:
            found = find_weight_files(directory, config)
        except InputError:
            assert wanted == [] or wanted[0].endswith(".bin")
            assert not {"model.safetensors", "model.safetensors.index.json", named} & present
            return
    taken = [path.name for path in found.shards]
    assert wanted in (taken, [])
    own = {*taken, found.index and found.index.name, "adapter_model.safetensors"}
    sets = {name for name in {*present, *SHARDS} if ".safetensors" in name}
    assert found.left_out.keys() == sets - own
