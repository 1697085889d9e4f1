"""Calibration reaches the matrices of a model wherever they lie, and says where it does not."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

import isotone
from isotone.calibration.arrays import load_array
from isotone.calibration.statistics import Statistics, text_file
from isotone.checkpoint.opening import open_compressed
from isotone.errors import InputError
from isotone.models.open_source import open_source
from tests.builders import language_model
from tests.builders.tiny_models import GATED, TOKENS

SIZES = {**GATED, **TOKENS, "vocab_size": 320}
PLAIN = {key: SIZES[key] for key in SIZES if key not in ("head_dim", "num_key_value_heads")}
SMALL = {"vocab_size": 320, "n_layer": 2, "n_head": 2}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def gemma3():
    text = {**SIZES, "sliding_window": 8, "query_pre_attn_scalar": 16}
    tokens = {"image_token_index": 319, "boi_token_index": 317, "eoi_token_index": 318}
    return transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(
            text_config={**text, "model_type": "gemma3_text"},
            vision_config=VISION,
            mm_tokens_per_image=4,
            **tokens,
        )
    )


def llava():
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config={**SIZES, "model_type": "llama"},
            vision_config={**VISION, "model_type": "clip_vision_model"},
            image_token_index=319,
        )
    )


def of(config, model, **arguments):
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**arguments))


# What makes each of them, and the words in the names of matrices that text does not reach.
MODELS = {
    "llama": (of("LlamaConfig", "LlamaForCausalLM", **SIZES), ()),
    "llama from the base model": (
        of("LlamaConfig", "LlamaModel", **SIZES, tie_word_embeddings=True),
        (),
    ),
    "bloom": (of("BloomConfig", "BloomForCausalLM", hidden_size=32, **SMALL), ()),
    "falcon": (of("FalconConfig", "FalconForCausalLM", **PLAIN), ()),
    "neox from the base model": (
        of("GPTNeoXConfig", "GPTNeoXForCausalLM", **PLAIN, tie_word_embeddings=False),
        (),
    ),
    "mixtral": (of("MixtralConfig", "MixtralForCausalLM", **SIZES, num_local_experts=4), ()),
    "opt": (
        of("OPTConfig", "OPTForCausalLM", **PLAIN, ffn_dim=64, word_embed_proj_dim=32),
        ("position",),
    ),
    "gemma3": (gemma3, ("vision", "multi_modal")),
    "llava": (llava, ("vision", "multi_modal")),
}


def written(kind, directory):
    torch.manual_seed(0)
    MODELS[kind][0]().save_pretrained(directory)
    language_model.tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(language_model.text(800), "utf-8")
    return path


@pytest.mark.parametrize("kind", MODELS)
def test_all_linear_matrices_that_text_reaches_have_their_own_statistics(kind, text, tmp_path):
    dense = written(kind, tmp_path / "dense")
    isotone.calibrate(dense, tmp_path / "statistics", text=text)
    statistics = Statistics.open(tmp_path / "statistics")
    expected = {
        tensor.name
        for tensor in open_source(dense).tensors
        if len(tensor.shape) == 2 and not any(word in tensor.name for word in MODELS[kind][1])
    }
    index = json.loads((tmp_path / "statistics" / "statistics.json").read_text("utf-8"))
    assert {each["tensor"] for each in index["matrices"]} == expected
    compare_with_hooks(
        dense, statistics, sorted(name for name in expected if "emb" not in name), tmp_path
    )


def compare_with_hooks(dense, statistics, names, tmp_path):
    """Each second moment is that of the inputs of the module whose weight has these values."""
    kind = transformers.AutoModelForCausalLM
    if json.loads((dense / "config.json").read_text("utf-8"))["model_type"] == "llava":
        kind = transformers.AutoModelForImageTextToText
    model = kind.from_pretrained(dense, dtype="float32").eval()
    source = open_source(dense)
    by_bytes = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear) and weight is not None:
            by_bytes[weight.detach().numpy().tobytes()] = module
    tensors = {tensor.name: tensor for tensor in source.tensors}
    windows = np.array(load_array(text_file(tmp_path / "statistics")))
    kept = [i for i in range(len(windows)) if i % 4 != 3]
    compared = 0
    for name in names:
        tensor = tensors[name]
        module = by_bytes.get(source.read(tensor, 0, tensor.n_weights).tobytes())
        if module is None:
            continue  # the model stacks it with others
        given = []
        hook = module.register_forward_hook(lambda _, args, __, given=given: given.append(args[0]))
        with torch.no_grad():
            model(input_ids=torch.tensor(windows[kept]))
        hook.remove()
        rows = torch.cat([x.reshape(-1, x.shape[-1]) for x in given]).numpy()
        found = statistics.sensitivity(name, 0, tensor.shape[0]).inputs
        np.testing.assert_allclose(found, rows.T @ rows / len(rows), rtol=2e-2, atol=1e-3)
        compared += 1
        if compared == 3:
            break
    assert compared or "mixtral" in str(dense)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "isotone.cli.main", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_model_of_which_less_than_half_is_reached_says_so(text, tmp_path):
    dense = written("gemma3", tmp_path / "dense")
    done = run("compress", dense, tmp_path / "out", "--bits", 4, "--calibrate", text, "--json")
    assert done.returncode == 0, done.stderr
    calibration = json.loads(done.stdout)["calibration"]
    assert 0 < calibration["share"] < 0.5
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("only "))
    assert f"only {calibration['share']:.0%} of the weights of linear layers" in line


def test_a_model_of_which_nothing_is_reached_is_refused(text, tmp_path):
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, **SMALL, **TOKENS))
    model.save_pretrained(tmp_path / "dense")
    language_model.tokenizer().save_pretrained(tmp_path / "dense")
    with pytest.raises(InputError, match="nothing can be calibrated"):
        isotone.calibrate(tmp_path / "dense", tmp_path / "statistics", text=text)
    done = run("compress", tmp_path / "dense", tmp_path / "out", "--bits", 4, "--calibrate", text)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["bloom", "llama from the base model", "gemma3", "mixtral"])
@pytest.mark.parametrize("residency", ["dense", "packed"])
def test_codebooks_are_swapped_by_the_names_of_the_checkpoint(kind, residency, tmp_path):
    dense = written(kind, tmp_path / "dense")
    isotone.compress(dense, tmp_path / "out", k=8)
    config = isotone.IsotoneConfig(residency=residency)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=config
    ).eval()
    name = next(
        record.name
        for record in open_compressed(tmp_path / "out").manifest.clustered
        if ".1." in record.name and "vision" not in record.name
    )
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with isotone.swapped(model, {name: lambda t: t.codebook * 2.0}):
            assert not torch.equal(model(input_ids=ids).logits, before)
        assert torch.equal(model(input_ids=ids).logits, before)
