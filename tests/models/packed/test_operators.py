"""The operators that stand for packed weights in compiled and exported models."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck

import isotone
from isotone.core.float_format import FloatFormat
from isotone.models.packed.modules import clustered_weights
from isotone.models.packed.operators import arrays_of
from tests.builders.packed_weights import packed_weight, random_tensor
from tests.builders.tiny_models import ids, load_clustered

peft = pytest.importorskip("peft")

WHOLE = ["llama-untied", "llama-tied", "qwen3", "gpt2", "phi"]
BROKEN = ["qwen3-moe", "gemma3", "opt"]
"""Kinds of which some modules run uncompiled: stacks of experts, embeddings of their own kind."""


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", [*WHOLE, *BROKEN])
def test_compiled_a_model_gives_the_same_bits(kind, compressed):
    model = load_clustered(compressed(kind))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=kind in WHOLE)
    with torch.no_grad():
        assert torch.equal(compiled(ids()).logits, model(ids()).logits)


def test_compiled_it_follows_autocast(compressed):
    model = load_clustered(compressed("llama-untied"), dtype=torch.float32)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(ids()).logits, model(ids()).logits)


def test_compiled_it_sees_other_codebooks(compressed):
    model = load_clustered(compressed("llama-untied"), dtype=torch.float32)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        before = compiled(ids()).logits
        with isotone.swapped(model, {"*": lambda tensor: tensor.codebook * 0.5}):
            edited = compiled(ids()).logits
            assert torch.equal(edited, model(ids()).logits)
        assert not torch.equal(edited, before)
        assert torch.equal(compiled(ids()).logits, before)


def codebooks_trained(model):
    for weight in clustered_weights(model):
        weight.codebook.requires_grad_(True)
    return model


def adapter_trained(model):
    torch.manual_seed(0)
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False, use_dora=True)
    return peft.get_peft_model(model, config)


def gradients(model, compiled):
    compiled(input_ids=ids(), labels=ids()).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["llama-untied", "llama-tied"])
@pytest.mark.parametrize("trained", [codebooks_trained, adapter_trained])
def test_compiled_it_trains_as_it_does_otherwise(kind, trained, compressed):
    found = []
    for compiles in (False, True):
        model = trained(load_clustered(compressed(kind), dtype=torch.float32))
        compiled = torch.compile(model, backend="aot_eager") if compiles else model
        found.append(gradients(model, compiled))
    expected, given = found
    assert given.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(given[name], expected[name])


@pytest.mark.parametrize("kind", [*WHOLE, *BROKEN])
def test_an_exported_model_gives_the_same(kind, compressed):
    model = load_clustered(compressed(kind), dtype=torch.float32)
    model.config.use_cache = False
    with torch.no_grad():
        exported = torch.export.export(model, (ids(),), strict=False)
        torch.testing.assert_close(exported.module()(ids()).logits, model(ids()).logits)
    held = sum(tensor.numel() for tensor in exported.state_dict.values() if tensor.ndim > 1)
    assert held < model.num_parameters()  # its ranks are packed in it


CASES = {
    "plain": {"shape": (18, 8), "k": 16},
    "scales as codes": {"shape": (18, 8), "k": 5, "scales": "codes"},
    "scales as numbers": {"shape": (18, 8), "k": 5, "scales": True},
    "float32": {"shape": (18, 8), "k": 200, "float_format": FloatFormat.F32},
}


def trained_weight(case):
    """A weight, with a gradient asked of everything that may have one."""
    weight = packed_weight(random_tensor(**CASES[case])).to(torch.float32)
    weight.codebook.requires_grad_(True)
    for name in ("row_scale", "column_scale"):
        scale = getattr(weight, name)
        if scale is not None and scale.is_floating_point():
            setattr(weight, name, weight.all_scales(name).requires_grad_(True))
    return weight


CALLS = {
    "decode": lambda weight: (torch.ops.isotone.decode, (None, *arrays_of(weight))),
    "rows": lambda weight: (
        torch.ops.isotone.decode,
        (torch.tensor([4, 1, 4, 17]), *arrays_of(weight)),
    ),
    "linear": lambda weight: (
        torch.ops.isotone.linear,
        (torch.randn(2, 3, 8, requires_grad=True), None, *arrays_of(weight)),
    ),
    "linear with a bias": lambda weight: (
        torch.ops.isotone.linear,
        (torch.randn(3, 8), torch.randn(18, requires_grad=True), *arrays_of(weight)),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("call", CALLS)
def test_operators_keep_the_rules_of_torch(case, call):
    operator, arguments = CALLS[call](trained_weight(case))
    opcheck(operator.default, arguments)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 18)])
def test_traced_forms_equal_the_others_and_their_gradients(case, bias):
    inputs, rows = torch.randn(2, 3, 8), torch.tensor([[4, 1], [4, 17]])
    results = []
    for prefix in ("", "traced_"):
        weight, given = trained_weight(case), inputs.clone().requires_grad_(True)
        whole = weight.traced() if prefix else weight()
        outputs = getattr(weight, f"{prefix}linear")(given, bias)
        chosen = getattr(weight, f"{prefix}rows")(rows)
        (whole.square().sum() + outputs.square().sum() + chosen.square().sum()).backward()
        trained = [weight.codebook, weight.row_scale, weight.column_scale]
        grads = [t.grad for t in trained if t is not None and t.grad is not None]
        results.append([whole, outputs, chosen, given.grad, *grads])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.equal(results[0][0], results[1][0])
