"""What people do with a model works on a packed one: count, pickle, copy, compile, adapt."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from isotone.errors import InputError
from isotone.models.packed.modules import clustered_weights
from tests.builders.tiny_models import CONFIGS, ids, load_clustered

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # that PEFT asks for it
)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("exclude_embeddings", [False, True])
def test_parameters_are_counted_as_in_the_dense_model(kind, exclude_embeddings, compressed):
    packed, dense = load_clustered(compressed(kind)), load_clustered(compressed(kind), "dense")
    options = {"exclude_embeddings": exclude_embeddings}
    assert packed.num_parameters(**options) == dense.num_parameters(**options)
    packed.requires_grad_(False)
    assert packed.num_parameters(only_trainable=True) == 0


def through_torch_save(model, path):
    torch.save(model, path)
    return torch.load(path, weights_only=False)


COPIES = {
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "torch.save": through_torch_save,
}


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe", "gpt2"])
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_the_same_model(kind, way, compressed, tmp_path):
    packed = load_clustered(compressed(kind))
    other = COPIES[way](packed, tmp_path / "model.pt")
    assert type(other) is type(packed)
    with torch.no_grad():
        expected = packed(ids()).logits
        assert torch.equal(other(ids()).logits, expected)
        assert torch.equal(other.to(torch.float32)(ids()).logits, packed.float()(ids()).logits)
    other.save_pretrained(tmp_path / "saved")


def test_a_state_dict_goes_back(compressed):
    packed = load_clustered(compressed("llama-tied"))
    state = {name: tensor.clone() for name, tensor in packed.state_dict().items()}
    other = load_clustered(compressed("llama-tied"))
    assert other.load_state_dict(state).missing_keys == []


def adapted(model, **options):
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=4, **options)
    torch.manual_seed(0)
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize(
    "options",
    [{}, {"use_dora": True}, {"use_rslora": True}, {"target_modules": ["embed_tokens", "up_proj"]}],
)
def test_adapters_train_as_on_the_dense_model(compressed, options):
    losses = {}
    for residency in ("packed", "dense"):
        model = load_clustered(compressed("llama-untied"), residency, dtype=torch.float32)
        config = {"target_modules": ["q_proj", "v_proj"], "r": 4, **options}
        torch.manual_seed(0)
        model = peft.get_peft_model(model, peft.LoraConfig(**config))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=0.02)
        losses[residency] = []
        for _ in range(6):
            loss = model(ids(), labels=ids()).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[residency].append(float(loss.detach()))
    assert losses["packed"][-1] < losses["packed"][0]
    torch.testing.assert_close(
        torch.tensor(losses["packed"]), torch.tensor(losses["dense"]), rtol=1e-3, atol=1e-4
    )


def test_an_adapter_is_saved_and_loaded(compressed, tmp_path):
    model = adapted(load_clustered(compressed("llama-untied")), init_lora_weights=False)
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(
        load_clustered(compressed("llama-untied")), tmp_path / "adapter"
    )
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, model(ids()).logits)


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("how", ["merge_and_unload", "merge_adapter"])
def test_merging_an_adapter_is_refused(compressed, how, safe):
    model = adapted(load_clustered(compressed("llama-untied")), init_lora_weights=False).eval()
    with torch.no_grad():
        before = model(ids()).logits
    with pytest.raises(InputError, match=r"residency=.dense"):
        getattr(model, how)(safe_merge=safe)
    with torch.no_grad():
        torch.testing.assert_close(model(ids()).logits, before)


@pytest.mark.filterwarnings("ignore:.*ensure_weight_tying:UserWarning")
@pytest.mark.parametrize("saved", ["lm_head", "embed_tokens", "norm"])
@pytest.mark.parametrize("kind", ["llama-untied", "llama-tied"])
def test_modules_to_save_train_and_load_as_on_the_dense_model(kind, saved, compressed, tmp_path):
    logits = []
    for residency in ("packed", "dense"):
        model = load_clustered(compressed(kind), residency, dtype=torch.float32)
        model = adapted(model, modules_to_save=[saved])
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            model(ids(), labels=ids()).loss.backward()
            optimizer.step()
        model.eval().save_pretrained(tmp_path / residency)
        base = load_clustered(compressed(kind), dtype=torch.float32)
        again = peft.PeftModel.from_pretrained(base, tmp_path / residency).eval()
        with torch.no_grad():
            logits += [model(ids()).logits, again(ids()).logits]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("initial", ["pissa", "olora"])
def test_adapters_that_begin_with_a_write_are_refused(compressed, initial):
    with pytest.raises(InputError, match=r"residency=.dense"):
        adapted(load_clustered(compressed("llama-untied")), init_lora_weights=initial)


def test_an_adapter_of_the_dense_model_with_its_embedding_is_loaded(compressed, tmp_path):
    dense = load_clustered(compressed("llama-untied"), "dense")
    config = peft.LoraConfig(target_modules=["embed_tokens"], r=4, init_lora_weights=False)
    trained = peft.get_peft_model(dense, config).eval()
    trained.save_pretrained(tmp_path, save_embedding_layers=True)
    base = load_clustered(compressed("llama-untied"))
    again = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, trained(ids()).logits)


def trainer(model, folder):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = [{"input_ids": ids()[0], "labels": ids()[0]}] * 2
    return Trainer(model, arguments, train_dataset=rows)


def test_the_trainer_trains_codebooks_if_they_are_to_be_trained(compressed, tmp_path):
    model = load_clustered(compressed("llama-untied"), dtype=torch.float32)
    with pytest.raises(ValueError, match="adapters"):
        trainer(model, tmp_path)
    weights = clustered_weights(model)
    before = [weight.codebook.detach().clone() for weight in weights]
    for weight in weights:
        weight.codebook.requires_grad_(True)
    trainer(model, tmp_path).train()
    assert not any(torch.equal(w.codebook, b) for w, b in zip(weights, before, strict=True))


def test_the_trainer_trains_an_adapter(compressed, tmp_path):
    model = adapted(load_clustered(compressed("llama-untied"), dtype=torch.float32))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    trainer(model, tmp_path).train()
    changed = [n for n, p in model.named_parameters() if n in before and not p.equal(before[n])]
    assert changed
