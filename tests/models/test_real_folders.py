"""Folders as people have them, from transformers, PEFT and sentence-transformers themselves."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import isotone
from isotone.errors import InputError
from tests.builders import language_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # that PEFT asks for it
)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return language_model.write_language_model(tmp_path_factory.mktemp("model") / "dense")


@pytest.fixture(scope="module")
def clustered(dense, tmp_path_factory):
    out = tmp_path_factory.mktemp("clustered") / "out"
    isotone.compress(dense, out, k=16)
    return out


def test_a_folder_that_held_a_clustered_model_before(clustered, tmp_path):
    folder = shutil.copytree(clustered, tmp_path / "folder")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(folder)
    summary = isotone.compress(folder, tmp_path / "out", k=16)
    assert "isotone.json" in summary.left_out
    assert isotone.verify(tmp_path / "out", against=folder).ok
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert float(loaded.lm_head.weight.detach().mean()) == pytest.approx(1.0, abs=0.2)
    assert isotone.generate(folder, "the model", max_tokens=2).n_tokens == 2


@pytest.mark.parametrize("again", [False, True])
def test_a_new_model_from_the_config_of_a_clustered_one(clustered, tmp_path, again):
    fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(clustered))
    fresh.save_pretrained(tmp_path / "fresh")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fresh")
    if again:
        loaded.save_pretrained(tmp_path / "again")
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    for name, parameter in fresh.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name
    isotone.compress(tmp_path / "fresh", tmp_path / "out", k=16)
    assert isotone.verify(tmp_path / "out", against=tmp_path / "fresh").ok
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_dense_weights_cannot_be_loaded_packed(clustered, tmp_path):
    fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(clustered))
    fresh.save_pretrained(tmp_path / "fresh")
    with pytest.raises(InputError, match="its weights are dense"):
        AutoModelForCausalLM.from_pretrained(
            tmp_path / "fresh", quantization_config=isotone.IsotoneConfig(residency="packed")
        )


def test_a_clustered_folder_that_lost_its_manifest_is_refused(clustered, tmp_path):
    folder = shutil.copytree(clustered, tmp_path / "folder")
    (folder / "isotone.json").unlink()
    with pytest.raises(InputError, match=r"has no isotone\.json"):
        AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(InputError, match="quantized already"):
        isotone.compress(folder, tmp_path / "out", k=16)


def test_an_adapter_of_peft_alone_and_beside_a_model(dense, tmp_path):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(dense)
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match="adapter without its base model"):
        isotone.compress(tmp_path / "adapter", tmp_path / "out", k=16)
    beside = shutil.copytree(dense, tmp_path / "beside")
    shutil.copytree(tmp_path / "adapter", beside, dirs_exist_ok=True)
    with_adapter = isotone.compress(beside, tmp_path / "out", k=16)
    assert with_adapter.n_weights == isotone.compress(dense, tmp_path / "plain", k=16).n_weights
    name = "adapter_model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()
    # transformers applies the adapter to both.
    source, out = (AutoModelForCausalLM.from_pretrained(p) for p in (beside, tmp_path / "out"))
    assert source.active_adapters() == out.active_adapters() == ["default"]
    adapted = [n for n, _ in out.named_parameters() if "lora_A" in n]
    assert adapted
    for n in adapted:
        assert torch.equal(out.get_parameter(n), source.get_parameter(n))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_sentence_encoder_with_a_dense_module(tmp_path):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    (tmp_path / "bert").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "bert" / "vocab.txt")).save_pretrained(tmp_path / "bert")
    config = BertConfig(
        vocab_size=8,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    word = models.Transformer(str(tmp_path / "bert"))
    encoder = SentenceTransformer(modules=[word, models.Pooling(64), models.Dense(64, 32)])
    encoder.save(str(tmp_path / "encoder"))
    summary = isotone.compress(tmp_path / "encoder", tmp_path / "out", k=64)
    assert summary.left_out == {}
    assert isotone.verify(tmp_path / "out", against=tmp_path / "encoder").ok
    back = SentenceTransformer(str(tmp_path / "out"))
    for name, tensor in encoder[2].state_dict().items():
        assert torch.equal(back[2].state_dict()[name].cpu(), tensor.cpu())
    similarity = torch.cosine_similarity(
        torch.tensor(back.encode(["a b c"])), torch.tensor(encoder.encode(["a b c"]))
    )
    assert float(similarity) > 0.95


CODE = "raise SystemExit('the code of the model ran')\n"


@pytest.fixture
def custom(dense, tmp_path):
    """A model whose config asks for code of its own."""
    model = shutil.copytree(dense, tmp_path / "custom")
    config = json.loads((model / "config.json").read_text("utf-8"))
    config |= {
        "model_type": "own",
        "auto_map": {
            "AutoConfig": "modeling.OwnConfig",
            "AutoModelForCausalLM": "modeling.OwnModel",
        },
    }
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    (model / "modeling.py").write_text(CODE, "utf-8")
    return model


def test_a_model_with_code_of_its_own_is_compressed_without_running_it(custom, tmp_path):
    isotone.compress(custom, tmp_path / "out", k=16)
    assert isotone.verify(tmp_path / "out", against=custom).ok
    assert (tmp_path / "out" / "modeling.py").read_text("utf-8") == CODE


@pytest.mark.parametrize("what", ["evaluate", "generate", "calibrate"])
def test_code_of_a_model_is_never_run(custom, tmp_path, what):
    (tmp_path / "text.txt").write_text(language_model.text(400), "utf-8")
    text = tmp_path / "text.txt"
    runs = {
        "evaluate": lambda: isotone.evaluate(custom, text, context=16, windows=1),
        "generate": lambda: isotone.generate(custom, "the model"),
        "calibrate": lambda: isotone.calibrate(custom, tmp_path / "statistics", text=text),
    }
    with pytest.raises(InputError, match="code of its own") as caught:
        runs[what]()
    assert "\n" not in str(caught.value)
