"""Checkpoints that are quantised already are refused, wherever they say so."""

from __future__ import annotations

import json

import pytest

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.quantized import quantized_format

DENSE = [TensorInfo("layer.weight", "BF16", (64, 64))]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"bits": 4}}, "bits 4"),
        ({"quantization_config": {"other": 1}}, "unknown"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"compression_config": {"format": "pack-quantized"}}, "pack-quantized"),
        ({"model": {"language": {"quant_config": {"w_bit": 4}}}}, "w_bit 4"),
        ({"quantization_config": None}, None),
        ({"quantization": {"layers": 3}}, None),
        ({"quantization": "fp8"}, "fp8"),
        ({"quantization": "none"}, None),
        ({"quantization": {"bits": 16}}, None),
        ({"quantization_bit": 4}, "quantization_bit 4"),
        ({"quantization_bit": 0}, None),
        ({"hidden_size": 64}, None),
    ],
)
def test_by_its_config(config, says):
    found = quantized_format(config, None, DENSE)
    assert found is None if says is None else says in found


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}}, "NVFP4"),
        ("hf_quant_config.json", {"quantization": {"kv_cache_quant_algo": "FP8"}}, None),
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "GPTQ"),
        ("quantize_config.json", {"per_channel": True, "reduce_range": True}, None),
        ("quantize_config.json", {"modes": ["q4", "int8"], "quant_type": 1}, None),
        ("quantization_config.json", {"quant_method": "auto-round"}, "auto-round"),
        ("quant_results.json", {"bits": 4}, None),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 128, "version": "GEMM"}, "AWQ"),
    ],
)
def test_by_a_file_beside_it(tmp_path, name, content, says):
    (tmp_path / name).write_text(json.dumps(content))
    found = quantized_format({}, tmp_path, DENSE)
    assert found is None if says is None else says in found


def tensors(*described):
    return [TensorInfo(name, dtype, shape) for name, dtype, shape in described]


QUANTISED = {
    "gptq": [("a.qweight", "I32", (8, 64)), ("a.qzeros", "I32", (1, 8)), ("a.g_idx", "I32", (64,))],
    "gptq scales": [("a.qweight", "I32", (8, 64)), ("a.scales", "F16", (1, 64))],
    "mlx": [("a.weight", "U32", (64, 8)), ("a.scales", "F16", (64, 1)), ("a.biases", "F16", (64,))],
    "bitsandbytes 4": [("a.weight", "U8", (2048, 1)), ("a.weight.absmax", "F32", (64,))],
    "bitsandbytes 8": [("a.weight", "I8", (64, 64)), ("a.SCB", "F32", (64,))],
    "fp8": [("a.weight", "F8_E4M3", (64, 64)), ("a.weight_scale_inv", "F32", (1, 1))],
    "mxfp4": [("up_proj_blocks", "U8", (4, 64, 2, 16)), ("up_proj_scales", "U8", (4, 64, 2))],
    "compressed": [("a.weight_packed", "I32", (64, 8)), ("a.weight_scale", "BF16", (64, 1))],
    "int8": [("a.weight", "I8", (64, 64)), ("a.weight_zero_point", "I8", (64, 1))],
    "modelopt": [("a.weight", "I8", (64, 64)), ("a.weight_quantizer._scale", "F32", (64,))],
    "hqq": [("a.W_q", "U8", (32, 64)), ("a.meta", "F16", (64, 1))],
    "mistral": [("wq.weight", "F8_E4M3", (64, 64)), ("wq.qscale_weight", "F32", ())],
    "a suffix": [("a.q.weight", "I8", (64, 64)), ("a.q_scale", "F32", (64,))],
    "a bare scale": [("a.weight", "F8_E5M2", (64, 64)), ("a.scale", "F32", ())],
    "a flat weight": [("a.weight", "U8", (2048,)), ("a.weight.absmax", "F32", (64,))],
    "marlin": [("a.qweight", "I32", (4, 128)), ("a.s", "F16", (1, 64))],
    "quip": [("a.Qidxs", "I64", (64, 8)), ("a.SU", "F16", (64,))],
    "exl3": [("a.trellis", "I16", (4, 4, 64)), ("a.suh", "F16", (64,))],
}
PLAIN = {
    "mask and scale": [("attn.bias", "U8", (1, 1, 64, 64)), ("attn.attn_scale", "F32", ())],
    "a table of buckets": [("attn.bias_index", "I32", (8, 8)), ("attn.scale", "F32", (4,))],
    "quantisation-aware training": [
        ("a.weight", "F32", (64, 64)),
        ("a.weight_fake_quant.scale", "F32", (1,)),
        ("a.weight_fake_quant.zero_point", "I32", (1,)),
        ("a.weight_fake_quant.fake_quant_enabled", "U8", (1,)),
    ],
    "8-bit floats without scales": [("a.weight", "F8_E4M3", (64, 64))],
    "positions": [("e.position_ids", "I64", (1, 512)), ("e.weight", "F32", (8, 8))],
    "mask": [("attn.bias", "U8", (1, 1, 64, 64)), ("attn.weight", "F32", (64, 64))],
    "a scale of a layer": [("a.weight", "F32", (64, 64)), ("a.layer_scale", "F32", (64,))],
    "a logit scale": [("ids", "I32", (4, 4)), ("logit_scale", "F32", ())],
    "norm": [("norm.scale", "F32", (64,)), ("norm.num_batches_tracked", "I64", ())],
}


@pytest.mark.parametrize("name", QUANTISED)
def test_by_its_tensors(name):
    assert quantized_format({}, None, tensors(*QUANTISED[name]))


@pytest.mark.parametrize("name", PLAIN)
def test_integers_and_scales_alone_are_no_quantisation(name):
    assert quantized_format({}, None, tensors(*PLAIN[name])) is None
