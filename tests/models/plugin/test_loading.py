"""transformers loads compressed directories: as the dense model would load, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, pipeline

import isotone
from isotone.errors import FormatError, InputError
from isotone.models.plugin import loading
from isotone.models.plugin.quantizer import IsotoneQuantizer
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders.tiny_models import CONFIGS, config_of, ids, write_tiny

K = 16


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """For a kind of model: its dense directory, the compressed one, and that one decompressed."""
    made = {}

    def make(kind, dtype=torch.bfloat16):
        if (kind, dtype) not in made:
            root = tmp_path_factory.mktemp(kind)
            dense = write_tiny(kind, root / "dense", dtype)
            compress(dense, root / "out", k=K, workers=1)
            decompress(root / "out", root / "plain", workers=1)
            made[kind, dtype] = dense, root / "out", root / "plain"
        return made[kind, dtype]

    return make


def parameters(model):
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())


def assert_same(one, other):
    """The same parameters, bit for bit, and the same logits."""
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name
    with torch.no_grad():
        assert torch.equal(one(ids()).logits, other(ids()).logits)


@pytest.mark.parametrize("kind", CONFIGS)
def test_loads_what_decompress_gives(kind, directories):
    _, out, plain = directories(kind)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain))
    assert model.dtype == torch.bfloat16
    assert not getattr(model.config, "quantization_config", None)
    assert not hasattr(model, "hf_quantizer")
    n_shared = sum(p is model.get_input_embeddings().weight for p in parameters(model).values())
    assert n_shared == 1 + bool(model.config.tie_word_embeddings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, "auto", None])
@pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}])
def test_dtype_and_device_map_are_those_of_the_dense_model(dtype, device_map, directories):
    _, out, plain = directories("llama-tied")
    options = {"dtype": dtype, "device_map": device_map}
    model = AutoModelForCausalLM.from_pretrained(out, **options)
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain, **options))


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_other_source_formats(stored, directories):
    _, out, plain = directories("llama-untied", stored)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == stored
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain))


def test_a_config_without_dtype_leads_to_that_of_the_weights(directories, tmp_path):
    dense, *_ = directories("gpt2", torch.float16)
    config = json.loads((dense / "config.json").read_text())
    del config["dtype"]
    (dense / "config.json").write_text(json.dumps(config))
    compress(dense, tmp_path / "out", k=K, workers=1)
    assert AutoModelForCausalLM.from_pretrained(dense).dtype == torch.float16
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float16


def test_a_model_in_several_shards(directories, tmp_path, monkeypatch):
    dense, _, plain = directories("qwen3-moe")
    monkeypatch.setattr("isotone.plan.job.plan_shards", _small_shards())
    compress(dense, tmp_path / "out", k=K, workers=1)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain))


def _small_shards():
    from isotone.plan.shards import plan_shards

    return lambda plans: plan_shards(plans, 30_000)


def test_the_base_model_alone(directories):
    _, out, plain = directories("llama-untied")
    model, other = AutoModel.from_pretrained(out), AutoModel.from_pretrained(plain)
    assert torch.equal(model(ids())[0], other(ids())[0])


def test_pipeline(directories):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    _, out, plain = directories("llama-tied")
    words = {"[UNK]": 0, **{f"w{i}": i for i in range(1, 160)}}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[UNK]").save_pretrained(out)
    say = pipeline("text-generation", str(out))
    ours = say("w5 w6 w7", max_new_tokens=8, do_sample=False)
    other = pipeline("text-generation", str(plain), tokenizer=say.tokenizer)
    assert ours == other("w5 w6 w7", max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe", "gpt2"])
def test_saved_as_an_ordinary_model(kind, directories, tmp_path):
    _, out, _ = directories(kind)
    model = AutoModelForCausalLM.from_pretrained(out)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    assert "transformers_weights" not in config
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_the_config_comes_back(directories):
    dense, out, plain = directories("gemma3")
    original = json.loads((dense / "config.json").read_text())
    assert json.loads((plain / "config.json").read_text()) == original
    assert verify(out, against=dense).ok
    assert isinstance(AutoConfig.from_pretrained(out), type(config_of("gemma3")))


# -- import order, and loading without isotone ----------------------------------------------------

LOAD = """
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(model.dtype)
"""
ORDERS = {
    "isotone first": """
        import sys, isotone
        assert not {"torch", "transformers", "numpy"} & sys.modules.keys()
        from transformers import pipeline, AutoModelForCausalLM
        """,
    "isotone last": """
        import sys
        from transformers import AutoModelForCausalLM, pipeline
        import transformers.modeling_utils
        import isotone
        """,
    "the config first": """
        import sys, isotone
        isotone.IsotoneConfig
        from transformers import AutoModelForCausalLM
        """,
    "no isotone": """
        import sys
        from transformers import AutoModelForCausalLM
        """,
}


@pytest.fixture(scope="module")
def runs(directories):
    """What each order came to: exit code, stdout, stderr. They run at the same time."""
    _, out, _ = directories("llama-tied")
    started = {
        order: subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code) + LOAD, str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for order, code in ORDERS.items()
    }
    return {
        order: (*run.communicate(timeout=240), run.returncode) for order, run in started.items()
    }


@pytest.mark.parametrize("order", list(ORDERS)[:-1])
def test_any_import_order(order, runs):
    out, err, code = runs[order]
    assert (out.strip(), code) == ("torch.bfloat16", 0), err


def test_without_isotone_loading_fails_and_says_what_to_do(runs):
    out, err, code = runs["no isotone"]
    assert (out, code) == ("", 1)
    last = err.strip().splitlines()[-1]
    assert last.startswith("ValueError")
    assert "`import isotone` before loading" in last
    assert "pip install 'isotone[models]'" in last


def test_every_nested_config_says_so_too():
    from isotone.checkpoint.compressed.config import NOTICE, compressed_config, dense_config

    config = {"model_type": "a", "text_config": {"model_type": "b", "rope": {"x": 1}}, "dtype": "x"}
    marked = compressed_config(config, [])
    assert marked["transformers_weights"] == marked["text_config"]["transformers_weights"] == NOTICE
    assert "transformers_weights" not in marked["text_config"]["rope"]
    assert dense_config(marked) == config


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def damaged(directories, tmp_path):
    """A copy of a compressed directory to damage."""
    import shutil

    _, out, _ = directories("llama-tied")
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


def test_offloading_to_disk(directories, tmp_path):
    _, out, _ = directories("llama-tied")
    places = {"model": "cpu", "lm_head": "disk"}
    with pytest.raises(InputError, match="to disk") as refused:
        load(out, device_map=places, offload_folder=tmp_path)
    assert_one_line(refused)


def test_quantising_on_the_fly(directories):
    dense, *_ = directories("llama-tied")
    with pytest.raises(InputError, match="isotone compress MODEL OUT") as refused:
        load(dense, quantization_config=isotone.IsotoneConfig())
    assert_one_line(refused)


def test_another_residency():
    with pytest.raises(InputError, match="expected dense or packed"):
        isotone.IsotoneConfig(residency="sparse")


def test_a_transformers_that_loads_otherwise(monkeypatch, directories):
    from transformers import PreTrainedModel

    _, out, _ = directories("llama-tied")
    changed = staticmethod(lambda _model, _files: None)
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", changed)
    with pytest.raises(InputError, match=r"transformers \d.*does not know"):
        load(out)


def test_interception_happens_once(directories):
    from transformers import PreTrainedModel

    _, out, _ = directories("llama-tied")
    load(out)
    before = vars(PreTrainedModel)["_load_pretrained_model"]
    loading.intercept_loading(IsotoneQuantizer)
    assert vars(PreTrainedModel)["_load_pretrained_model"] is before


def test_other_models_load_as_ever(directories):
    dense, *_ = directories("llama-tied")
    assert load(dense).dtype == torch.bfloat16
