"""Packed residency: the same numbers from a fraction of the memory."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

import isotone
from isotone.checkpoint.opening import open_compressed
from isotone.codec.packed import rank_bits
from isotone.core.cluster import cluster
from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.float_format import FloatFormat
from isotone.core.values import Values
from isotone.errors import InputError
from isotone.models.lazy.deferred import Deferred
from isotone.models.packed.modules import clustered_weights, hosts
from isotone.models.packed.outliers import ProtectedWeights
from isotone.models.packed.ranks import _shifted, pack_rows, row_bytes, unpack_rows
from isotone.models.packed.weight import ClusteredWeight
from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders.tiny_models import CONFIGS, ids, write_tiny

TOLERANCE = 1e-5
"""Of gradients, relative: they are summed in float64 here and in float32 by torch's reference."""


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    made = {}

    def make(kind):
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            compress(write_tiny(kind, root / "dense"), root / "out", k=16, workers=1)
            made[kind] = root / "out"
        return made[kind]

    return make


def load(directory, residency="packed", cls=AutoModelForCausalLM, **options):
    config = isotone.IsotoneConfig(residency=residency)
    return cls.from_pretrained(directory, quantization_config=config, **options)


def clustered_records(directory):
    return open_compressed(directory).manifest.clustered


# -- whole models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_equal_those_of_dense_residency(kind, directories):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may stay dense unnoticed
        packed = load(directories(kind))
    dense = load(directories(kind), "dense")
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)
    for name, parameter in hosts(packed):
        assert torch.equal(parameter.deferred() + 0, dense.get_parameter(name)), name
    assert packed.dtype == dense.dtype == torch.bfloat16
    held = {leaf.name for leaf in clustered_weights(packed)}
    assert held == {record.name for record in clustered_records(directories(kind))}


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe"])
def test_logits_equal_with_factors_of_both_sides(kind, tmp_path):
    source = write_tiny(kind, tmp_path / "dense")
    compress(source, tmp_path / "out", bits=5.0, scale="both", workers=1)
    assert {record.scale for record in clustered_records(tmp_path / "out")} == {"both"}
    packed, dense = load(tmp_path / "out"), load(tmp_path / "out", "dense")
    assert all(leaf.row_scale.dtype == torch.uint8 for leaf in clustered_weights(packed))
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe"])
@pytest.mark.parametrize("options", [{"dtype": torch.float32}, {"device_map": "auto"}])
def test_dtype_and_device_map(kind, options, directories):
    packed, dense = load(directories(kind), **options), load(directories(kind), "dense", **options)
    assert packed.dtype == dense.dtype
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_every_way_to_run_experts(implementation, directories):
    options = {"experts_implementation": implementation, "dtype": torch.float32}
    packed = load(directories("qwen3-moe"), **options)
    dense = load(directories("qwen3-moe"), "dense", **options)
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


def test_one_expert_decodes_one_expert(directories, monkeypatch):
    packed = load(directories("qwen3-moe"), experts_implementation="eager")
    experts = packed.model.layers[0].mlp.experts
    whole = experts.gate_up_proj + 0
    decoded = []
    decode = ClusteredWeight.decode
    monkeypatch.setattr(
        ClusteredWeight,
        "decode",
        lambda self, rows: decoded.append(self.name) or decode(self, rows),
    )
    assert torch.equal(experts.gate_up_proj[2], whole[2])
    assert decoded == [f"model.layers.0.mlp.experts.2.{p}_proj.weight" for p in ("gate", "up")]


def test_generation(directories):
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    packed, dense = load(directories("gemma3")), load(directories("gemma3"), "dense")
    assert torch.equal(packed.generate(ids(), **options), dense.generate(ids(), **options))


def test_tied_weights_are_one(directories):
    packed = load(directories("llama-tied"))
    found = dict(hosts(packed))
    assert found["lm_head.weight"] is found["model.embed_tokens.weight"]
    untied = dict(hosts(load(directories("llama-untied"))))
    assert untied["lm_head.weight"] is not untied["model.embed_tokens.weight"]


def test_an_embedding_decodes_only_the_rows_looked_up(directories, monkeypatch):
    packed = load(directories("gemma3"))
    embedding = packed.get_input_embeddings()
    expected = embedding(torch.arange(160))[ids()]
    asked = []
    rows = ClusteredWeight._decoded
    monkeypatch.setattr(
        ClusteredWeight, "_decoded", lambda self, which: asked.append(which) or rows(self, which)
    )
    assert torch.equal(embedding(ids()), expected)
    assert [len(which) for which in asked] == [ids().numel()]


def test_metadata_is_free(directories, monkeypatch):
    weight = load(directories("llama-tied")).lm_head.weight
    monkeypatch.setattr(ClusteredWeight, "decode", None)
    assert isinstance(weight, Deferred)
    assert (weight.shape, weight.dtype, weight.device.type) == ((160, 32), torch.bfloat16, "cpu")
    assert (weight.ndim, weight.size(1), len(weight), weight.numel()) == (2, 32, 160, 5120)


def test_the_base_model_alone_does_not_warn(directories):
    packed = load(directories("llama-untied"), cls=AutoModel)
    dense = load(directories("llama-untied"), "dense", cls=AutoModel)
    assert torch.equal(packed(ids())[0], dense(ids())[0])


def test_what_cannot_be_put_off_is_dense_and_said(directories, monkeypatch):
    from transformers.core_model_loading import MergeModulelist

    def changes_in_place(_self, input_dict, target_patterns, **_):
        merged = {}
        for pattern, tensors in input_dict.items():
            out = torch.empty(len(tensors), *tensors[0].shape, dtype=tensors[0].dtype)
            for i, tensor in enumerate(tensors):
                out[i].copy_(tensor)
            merged[pattern if len(input_dict) > 1 else target_patterns[0]] = out
        return merged

    monkeypatch.setattr(MergeModulelist, "convert", changes_in_place)
    with pytest.warns(RuntimeWarning, match=r"24 clustered tensors.*take 36864 bytes"):
        packed = load(directories("qwen3-moe"))
    with torch.no_grad():
        dense = load(directories("qwen3-moe"), "dense")
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


def test_saved_as_it_came(directories, tmp_path):
    packed = load(directories("qwen3-moe"))
    packed.save_pretrained(tmp_path)
    assert verify(tmp_path).ok
    for path in directories("qwen3-moe").iterdir():
        if not path.name.startswith("."):
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    again = load(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, packed(ids()).logits)


def test_a_changed_model_is_not_saved_as_unchanged(directories, tmp_path):
    packed = load(directories("llama-tied"))
    with torch.no_grad():
        packed.model.norm.weight.add_(1)
    with pytest.raises(InputError, match=r"model\.norm\.weight: was changed"):
        packed.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_dtype_later(directories):
    packed, dense = load(directories("llama-tied")), load(directories("llama-tied"), "dense")
    packed, dense = packed.to(torch.float32), dense.to(torch.float32)
    assert packed.dtype == torch.float32
    assert all(leaf.codebook.dtype == torch.float32 for leaf in clustered_weights(packed))
    with torch.no_grad():
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)


def test_training_the_codebooks(directories):
    """One step changes the loss: gradients reach the codebooks through tied and looked-up rows."""
    packed = load(directories("llama-tied"), dtype=torch.float32)
    codebooks = [leaf.codebook.requires_grad_() for leaf in clustered_weights(packed)]
    before = packed(ids(), labels=ids()).loss
    before.backward()
    assert all(codebook.grad is not None for codebook in codebooks)
    torch.optim.SGD(codebooks, 0.05).step()
    assert packed(ids(), labels=ids()).loss < before


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [16, 32])
def test_resident_bytes_are_the_index_and_five_percent(k):
    rng = np.random.default_rng(0)
    array = rng.standard_t(6, (1024, 768)).astype(np.float16)
    weight = of_tensor(cluster(array, k))
    n_bytes = sum(t.nbytes for t in [*weight.parameters(), *weight.buffers()])
    assert 8 * n_bytes / array.size <= 1.05 * rank_bits(k)
    assert len(weight.protected.low) > 0


# -- the parts ------------------------------------------------------------------------------------


def of_tensor(tensor: ClusteredTensor) -> ClusteredWeight:
    """As it would be after loading."""
    shape = tensor.shape[1:] if tensor.codebook.ndim == 2 else tensor.shape
    n_rows = tensor.n_matrices * shape[0]
    bits = rank_bits(tensor.k)
    ranks = tensor.ranks.reshape(-1)
    index = pack_rows([ranks], n_rows, tensor.n_weights // n_rows, bits)
    return ClusteredWeight("w", tensor, index, bits)


def random_tensor(shape, k, *, stack=False, scales=False, float_format=FloatFormat.BF16):
    rng = np.random.default_rng(k)
    matrices = shape[0] if stack else 1
    rows, columns = shape[stack], int(np.prod(shape[stack + 1 :]))
    codebook = np.sort(rng.normal(size=(matrices, k)).astype(np.float32), axis=1)
    n = int(np.prod(shape))
    index = np.sort(rng.choice(n, n // 20, replace=False))
    sides = {}
    if scales == "codes":
        sides["row_scale"] = rng.integers(116, 140, (matrices, rows)).astype(np.uint8)
        sides["column_scale"] = rng.integers(116, 140, (matrices, columns)).astype(np.uint8)
    elif scales:
        sides["row_scale"] = rng.uniform(0.5, 2, (matrices, rows)).astype(np.float16)
        sides["column_scale"] = rng.uniform(0.5, 2, (matrices, columns)).astype(np.float32)
    if scales:
        sides = {k: v if stack else v[0] for k, v in sides.items()}
    ranks = rng.integers(0, k, shape).astype(np.uint8)
    values = Values(
        shape=shape,
        float_format=float_format,
        codebook=codebook if stack else codebook[0],
        protected_index=index,
        protected_value=float_format.downcast(rng.normal(size=len(index)).astype(np.float32) * 9),
        **sides,
    )
    return ClusteredTensor(values, ranks)


SHAPES = [
    ((40, 24), False),
    ((7, 5), False),
    ((3, 16, 8), True),
    ((2, 5, 3, 2), True),
    ((9, 4, 3), 0),
]


@pytest.mark.parametrize(("shape", "stack"), SHAPES)
@pytest.mark.parametrize("scales", [False, True, "codes"])
@pytest.mark.parametrize("k", [2, 5, 16, 100, 256])
@pytest.mark.parametrize("float_format", FloatFormat)
def test_decodes_what_the_core_object_does(shape, stack, scales, k, float_format):
    tensor = random_tensor(shape, k, stack=bool(stack), scales=scales, float_format=float_format)
    weight = of_tensor(tensor)
    expected = torch.from_numpy(tensor.dense())
    assert torch.equal(weight().float(), expected)
    assert torch.equal(weight.ranks(), torch.from_numpy(tensor.ranks))
    back = weight.clustered_tensor()
    assert np.array_equal(back.dense_bits(), tensor.dense_bits())
    if stack:
        for number in range(shape[0]):
            assert torch.equal(weight.matrix(number).float(), expected[number])
    else:
        rows = torch.tensor([[3, 0, 3], [shape[0] - 1, 1, 2]])
        assert torch.equal(weight.rows(rows).float(), expected[rows])


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n_columns", [1, 7, 8, 21])
def test_torch_unpacks_as_the_native_module_does(bits, n_columns):
    rng = np.random.default_rng(bits)
    ranks = rng.integers(0, 1 << bits, (6, n_columns)).astype(np.uint8)
    cuts = np.split(ranks.reshape(-1), [1, 2, 4 * n_columns])
    packed = pack_rows(cuts, 6, n_columns, bits)
    assert packed.shape == (6, row_bytes(n_columns, bits))
    assert torch.equal(unpack_rows(packed, n_columns, bits), torch.from_numpy(ranks))
    elsewhere = _shifted(packed, bits).reshape(6, -1)[:, :n_columns]
    assert torch.equal(elsewhere, torch.from_numpy(ranks))


def test_protected_positions_over_many_blocks():
    n_columns, n_rows = 1000, 400
    rng = np.random.default_rng(2)
    positions = np.sort(rng.choice(n_columns * n_rows, 900, replace=False))
    held = ProtectedWeights(positions, torch.arange(900), n_columns * n_rows)
    assert held.low.nbytes == 2 * 900
    assert np.array_equal(held.positions().numpy(), positions)
    rows = torch.tensor([399, 5, 5, 66, 0])
    places, entries = held.in_rows(rows, n_columns)
    found = {(int(p), int(e)) for p, e in zip(places, entries, strict=True)}
    assert found == {
        (i * n_columns + int(position) % n_columns, entry)
        for i, row in enumerate(rows.tolist())
        for entry, position in enumerate(positions)
        if position // n_columns == row
    }


def plain_weight(weight, tensor, codebook, row, column):
    """The dense weight [rows, columns] by indexing, which torch differentiates by itself."""
    ranks = torch.from_numpy(tensor.ranks).long().reshape(weight.n_matrices, -1)
    plain = codebook.view(weight.n_matrices, -1).gather(1, ranks)
    plain = plain.reshape(weight.n_rows, weight.n_columns)
    if row is not None:
        height = weight.n_rows // weight.n_matrices
        plain = plain * row.view(-1, 1) * column.repeat_interleave(height, 0)
    exact = torch.zeros(plain.numel(), dtype=torch.bool)
    exact[torch.from_numpy(tensor.protected_index)] = True
    exact = exact.view(plain.shape)
    return torch.where(exact, weight.decode(None), plain)


FACTOR = torch.randn(18, 8, generator=torch.Generator().manual_seed(1))
INPUTS = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
ROWS = torch.tensor([4, 1, 4, 17])
USES = {
    "whole": (lambda w: (w().view(18, 8) * FACTOR).sum(), lambda p: (p * FACTOR).sum()),
    "rows": (lambda w: (w.rows(ROWS) * FACTOR[:4]).sum(), lambda p: (p[ROWS] * FACTOR[:4]).sum()),
    "linear": (lambda w: (w.linear(INPUTS) ** 2).sum(), lambda p: ((INPUTS @ p.t()) ** 2).sum()),
}


@pytest.mark.parametrize("trained", ["codebook", "all"])
@pytest.mark.parametrize("scales", [False, True, "codes"])
@pytest.mark.parametrize(
    ("stack", "use"), [(False, "whole"), (False, "rows"), (False, "linear"), (True, "whole")]
)
def test_gradients_equal_those_of_a_plain_lookup(scales, stack, use, trained):
    shape = (3, 6, 8) if stack else (18, 8)
    tensor = random_tensor(shape, 7, stack=stack, scales=scales, float_format=FloatFormat.F32)
    weight = of_tensor(tensor)
    weight.codebook.requires_grad_()
    row = column = None
    if scales:
        row = weight.scales(slice(0, 18), 0)[0].clone()
        columns = [weight.scales(slice(0, 1), m)[1] for m in range(weight.n_matrices)]
        column = torch.stack(columns)
        if trained == "all":
            del weight.row_scale, weight.column_scale
            weight.row_scale, weight.column_scale = nn.Parameter(row), nn.Parameter(column)
            row, column = row.clone().requires_grad_(), column.clone().requires_grad_()
    codebook = torch.from_numpy(np.array(tensor.codebook)).requires_grad_()
    ours = [weight.codebook, weight.row_scale, weight.column_scale]
    theirs = [codebook, row, column]
    of_ours, of_theirs = USES[use]
    found = torch.autograd.grad(of_ours(weight), trainable(ours))
    plain = plain_weight(weight, tensor, codebook, row, column)
    expected = torch.autograd.grad(of_theirs(plain), trainable(theirs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def trainable(tensors):
    return [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]


def test_a_linear_layer_passes_gradients_on_to_its_inputs():
    weight = of_tensor(random_tensor((18, 8), 7, float_format=FloatFormat.F32))
    weight.codebook.requires_grad_()
    ours, theirs = (INPUTS.view(1, 5, 8).clone().requires_grad_() for _ in range(2))
    bias = torch.randn(18, generator=torch.Generator().manual_seed(3))
    out = weight.linear(ours, bias)
    reference = nn.functional.linear(theirs, weight.decode(None), bias)
    torch.testing.assert_close(out, reference)
    out.square().sum().backward()
    reference.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_linear_layer_saves_nothing_dense_for_its_gradient():
    weight = of_tensor(random_tensor((640, 480), 7, float_format=FloatFormat.F32))
    weight.codebook.requires_grad_()
    saved = []

    def note(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        weight.linear(torch.zeros(3, 480))
    assert saved == [3 * 480]
