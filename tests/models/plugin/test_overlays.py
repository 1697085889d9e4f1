"""transformers loads a codebook-only directory as it loads any other."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.checkpoint.overlay.write import write_complete
from isotone.errors import FormatError
from isotone.models.packed.modules import clustered_weights, hosts
from isotone.models.plugin.origin import origin
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders.checkpoints import tree
from tests.builders.overlays import every_overlay, values_of, write
from tests.builders.tiny_models import ids, write_tiny

KINDS = ["llama-tied", "qwen3-moe", "gpt2"]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """For a kind of model: the folder with its base, a codebook-only one, and that as dense."""
    made = {}

    def make(kind):
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            dense = write_tiny(kind, root / "source")
            compress(dense, root / "base", k=16, scale="both", workers=1)
            write(root / "base", root / "healed", trained(root / "base"), workers=1)
            decompress(root / "healed", root / "plain", workers=1)
            made[kind] = root
        return made[kind]

    return make


def trained(base):
    """New values everywhere; the norms' are numbers."""
    overlays = []
    for overlay in every_overlay(base):
        if overlay.kept is not None:
            norm = torch.linspace(0.5, 1.5, len(overlay.kept) // 2).to(torch.bfloat16)
            kept = norm.view(torch.uint8).numpy().tobytes()
            overlay = TensorOverlay(overlay.name, kept=kept)
        overlays.append(overlay)
    return overlays


def load(directory, residency="dense", **options):
    config = isotone.IsotoneConfig(residency=residency)
    return AutoModelForCausalLM.from_pretrained(directory, quantization_config=config, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_dense_and_packed_are_what_decompress_gives(kind, directories):
    root = directories(kind)
    plain = AutoModelForCausalLM.from_pretrained(root / "plain")
    ours = AutoModelForCausalLM.from_pretrained(root / "healed")
    packed = load(root / "healed", "packed")
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name)), name
    for name, parameter in hosts(packed):
        assert torch.equal(parameter.deferred() + 0, plain.get_parameter(name)), name
    with torch.no_grad():
        logits = plain(ids()).logits
        assert torch.equal(ours(ids()).logits, logits)
        assert torch.equal(packed(ids()).logits, logits)
        base = AutoModelForCausalLM.from_pretrained(root / "base")
        assert not torch.equal(base(ids()).logits, logits)
    assert ours.dtype == packed.dtype == plain.dtype == torch.bfloat16
    assert origin(ours) == origin(packed) == root / "healed"


def test_packed_weights_hold_the_new_codebooks(directories):
    root = directories("llama-tied")
    for leaf in clustered_weights(load(root / "healed", "packed")):
        tensor = values_of(root / "healed", leaf.name)
        assert leaf.codebook.detach().numpy().tobytes() == tensor.codebook.tobytes()
        assert leaf.row_scale.numpy().tobytes() == tensor.row_scale.tobytes()


@pytest.mark.parametrize("residency", ["dense", "packed"])
@pytest.mark.parametrize("options", [{"dtype": torch.float32}, {"device_map": "auto"}])
def test_dtype_and_device_map(residency, options, directories):
    root = directories("llama-tied")
    model = load(root / "healed", residency, **options)
    plain = AutoModelForCausalLM.from_pretrained(root / "plain", **options)
    with torch.no_grad():
        assert torch.equal(model(ids()).logits, plain(ids()).logits)


def test_memory_is_planned_for_the_base_as_well(directories, monkeypatch):
    from isotone.models.plugin.quantizer import IsotoneQuantizer

    seen = {}
    original = IsotoneQuantizer._process_model_before_weight_loading

    def note(self, model, *arguments, **options):
        result = original(self, model, *arguments, **options)
        seen[self.quantization_config.format_version] = self._bytes_a_weight
        return result

    monkeypatch.setattr(IsotoneQuantizer, "_process_model_before_weight_loading", note)
    root = directories("llama-tied")
    for name in ("base", "healed"):
        load(root / name, "packed")
    own = (root / "healed" / "model.safetensors").stat().st_size
    base = (root / "base" / "model.safetensors").stat().st_size
    assert seen[3] == pytest.approx(seen[2] * (own + base) / base, rel=1e-12)


@pytest.mark.parametrize("residency", ["dense", "packed"])
def test_codebooks_can_be_swapped(residency, directories):
    root = directories("llama-tied")
    model = load(root / "healed", residency)
    base = load(root / "base")
    edits = {
        record.name: values_of(root / "base", record.name).codebook
        for record in open_compressed(root / "base").manifest.clustered
    }
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with isotone.swapped(model, edits) as names:
        assert len(names) == len(edits)
        weight = model.get_submodule("model.layers.0.mlp.up_proj").weight + 0
        other = base.get_parameter("model.layers.0.mlp.up_proj.weight")
        assert not torch.equal(weight, other)  # for its factors are new as well
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


# -- saving ---------------------------------------------------------------------------------------


def test_a_packed_model_is_saved_as_a_complete_directory(directories, tmp_path):
    root = directories("qwen3-moe")
    packed = load(root / "healed", "packed")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    for _ in range(2):
        packed.save_pretrained(tmp_path / "saved")
    complete = write(root / "healed", tmp_path / "complete", (), by=write_complete)
    saved, expected = tree(tmp_path / "saved"), tree(complete)
    assert saved.pop("notes.txt") == b"mine"
    assert saved.keys() | {".isotone"} == expected.keys()
    for name in saved.keys() - {"isotone.json"}:
        assert saved[name] == expected[name], name
    opened = open_compressed(tmp_path / "saved")
    assert opened.base is None
    assert opened.manifest.arguments["k"] == 16
    assert opened.manifest.arguments["test"] == {"n": 1}
    assert verify(tmp_path / "saved", against=root / "source").ok
    with torch.no_grad():
        again = load(tmp_path / "saved", "packed")
        assert torch.equal(again(ids()).logits, packed(ids()).logits)


def test_saving_onto_itself_changes_nothing(directories):
    root = directories("llama-tied")
    before = tree(root / "healed")
    load(root / "healed", "packed").save_pretrained(root / "healed")
    assert tree(root / "healed") == before


def test_a_dense_model_is_saved_as_an_ordinary_one(directories, tmp_path):
    root = directories("llama-tied")
    load(root / "healed").save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "isotone.json").exists()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(root / "plain")
    with torch.no_grad():
        assert torch.equal(found(ids()).logits, plain(ids()).logits)


@pytest.mark.parametrize("residency", ["dense", "packed"])
def test_a_missing_base_is_one_line(residency, directories, tmp_path):
    root = directories("llama-tied")
    write(root / "base", tmp_path / "healed", trained(root / "base"))
    (tmp_path / "far").mkdir()
    (tmp_path / "healed").rename(tmp_path / "far" / "healed")
    with pytest.raises(FormatError, match="needs its base, with digest") as refused:
        load(tmp_path / "far" / "healed", residency)
    assert "\n" not in str(refused.value)
