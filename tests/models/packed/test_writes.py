"""A write to a packed weight raises; it never does nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isotone.errors import InputError
from isotone.models.packed.modules import clustered_weights
from tests.builders.tiny_models import ids, load_clustered


@pytest.fixture(scope="module")
def packed(compressed):
    return load_clustered(compressed("llama-untied"), dtype=torch.float32)


def weight(model):
    return model.model.layers[0].self_attn.q_proj.weight


def in_place_methods():
    """Every method of a tensor that ends in an underscore and runs with one simple argument."""
    dense = torch.ones(4, 4)
    for name in sorted(dir(torch.Tensor)):
        if not name.endswith("_") or name.endswith("__") or name.startswith("_"):
            continue
        for arguments in ((), (2.0,), (torch.ones(4, 4),)):
            tensor = dense.clone()
            try:
                getattr(tensor, name)(*arguments)
            except Exception:
                continue
            if tensor._version:
                yield name, len(arguments), bool(arguments) and isinstance(arguments[0], float)
                break


METHODS = list(in_place_methods())


def test_there_are_many_in_place_methods():
    assert len(METHODS) > 60


@pytest.mark.parametrize(("name", "n_arguments", "number"), METHODS)
def test_every_in_place_method_raises(packed, name, n_arguments, number):
    tensor = weight(packed)
    given = 2.0 if number else torch.ones(tensor.shape)
    with torch.no_grad(), pytest.raises(InputError, match=r"residency=.dense.*isotone\.swapped"):
        getattr(tensor, name)(*[given] * n_arguments)


def assign_data(w):
    w.data = torch.zeros(w.shape)


def add_in_place(w):
    w += 1


def set_item(w):
    w[0] = 0


def set_item_of_data(w):
    w.data[0, 1] = 0


WRITES = {
    "data": assign_data,
    "+=": add_in_place,
    "[]": set_item,
    "data[]": set_item_of_data,
    "data.copy_": lambda w: w.data.copy_(torch.zeros(w.shape)),
    "detach().zero_": lambda w: w.detach().zero_(),
    "a row": lambda w: w[1].zero_(),
    "a view of a view": lambda w: (
        w.t().unsqueeze(0)[:, 1:].view(-1).mul_(2)
        if w.t().is_contiguous()
        else w.unsqueeze(0)[:, 1:].flatten().unsqueeze(1).t().mul_(2)
    ),
    "a chunk": lambda w: w.chunk(2)[1].add_(1),
    "a row by unbind": lambda w: w.unbind()[0].fill_(1),
    "the same in the same dtype": lambda w: w.to(w.dtype).zero_(),
    "init.normal_": nn.init.normal_,
    "init.kaiming_uniform_": nn.init.kaiming_uniform_,
    "init.orthogonal_": nn.init.orthogonal_,
    "out=": lambda w: torch.add(torch.ones(w.shape), 1, out=w),
    "foreach": lambda w: torch._foreach_add_([w], 1.0),
    "clamp(out)": lambda w: torch.clamp(torch.ones(w.shape), max=0, out=w),
    "index_put": lambda w: torch.index_put_(w, (torch.tensor([0]),), torch.tensor(1.0)),
    "relu inplace": lambda w: torch.nn.functional.relu(w, inplace=True),
    "renormalising look-up": lambda w: torch.nn.functional.embedding(
        torch.tensor([0]), w, max_norm=1e-3
    ),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("write", WRITES)
def test_other_writes_raise_too(packed, write, mode):
    with mode(), pytest.raises(InputError, match="packed weight"):
        WRITES[write](weight(packed))


def test_an_array_of_it_cannot_be_written_to(packed):
    with pytest.raises(ValueError, match="read-only"):
        weight(packed).numpy()[0, 0] = 1


READS = {
    "sum": lambda w: w.sum(),
    "plus": lambda w: w + 1,
    "a clone is changed": lambda w: w.clone().zero_(),
    "a cast is changed": lambda w: w.to(torch.float64).zero_(),
    "what is computed is changed": lambda w: (w * 2).add_(1),
    "a row is read": lambda w: w[0] * 2,
    "transposed product": lambda w: torch.ones(2, w.shape[0]) @ w.t().t(),
    "norm": torch.linalg.vector_norm,
}


@pytest.mark.parametrize("read", READS)
def test_reading_gives_ordinary_tensors(packed, compressed, read):
    dense = load_clustered(compressed("llama-untied"), "dense", dtype=torch.float32)
    with torch.no_grad():
        found, expected = READS[read](weight(packed)), READS[read](weight(dense))
    assert type(found) is torch.Tensor
    assert torch.equal(found, expected)


def test_nothing_has_changed(packed, compressed):
    fresh = load_clustered(compressed("llama-untied"), dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, fresh(ids()).logits)


@pytest.mark.parametrize("kind", ["qwen3-moe", "gpt2"])
def test_stacks_and_embeddings_raise_too(compressed, kind):
    model = load_clustered(compressed(kind))
    assert clustered_weights(model)
    seen = 0
    for module in model.modules():
        for name in module._modules.get("_clustered", ()):
            with torch.no_grad(), pytest.raises(InputError, match="packed weight"):
                getattr(module, name).zero_()
            seen += 1
    assert seen > 3


def test_a_parameter_in_its_place_works(compressed):
    model = load_clustered(compressed("llama-untied"), dtype=torch.float32)
    layer = model.model.layers[0].self_attn.q_proj
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape))
    assert type(layer) is nn.Linear
    with torch.no_grad():
        assert float(layer(torch.ones(1, layer.in_features)).abs().sum()) == 0.0
        model(ids())


def test_resizing_the_embeddings_is_refused(compressed):
    model = load_clustered(compressed("llama-tied"))
    with pytest.raises(InputError, match="packed weight"):
        model.resize_token_embeddings(model.config.vocab_size + 8)


@pytest.mark.parametrize("asked", [(), (None, 32), (160,), (130, 32)])
def test_an_embedding_that_has_its_rows_is_not_resized(compressed, asked):
    model = load_clustered(compressed("llama-tied"))
    assert model.resize_token_embeddings(*asked) is model.get_input_embeddings()


@pytest.mark.parametrize("kind", ["llama-tied", "llama-untied", "gpt2"])
def test_tying_the_weights_again_changes_nothing(compressed, kind):
    model = load_clustered(compressed(kind))
    with torch.no_grad():
        before = model(ids()).logits
        model.tie_weights()
        assert torch.equal(model(ids()).logits, before)


def test_tying_the_weights_of_an_untied_model_shares_them(compressed):
    model = load_clustered(compressed("llama-untied"))
    model.config.tie_word_embeddings = True
    model.tie_weights()
    assert torch.equal(model.lm_head.weight + 0, model.model.embed_tokens.weight + 0)
