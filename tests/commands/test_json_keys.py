"""The keys that `--json` prints, command by command: scripts rely on them, so none goes away."""

from __future__ import annotations

import pytest

SUMMARY = """bits_per_weight n_weights n_tensors n_kept skipped n_protected coverage
    relative_distortion source_bytes output_bytes base_bytes n_changed calibration seconds
    peak_rss_bytes"""
RECORD = """name dtype shape file n_matrices k scale n_protected stored_bytes entropy_bits
    distortion relative_distortion optimality_gap mean standard_deviation source_hash decoded_hash
    bits_per_weight farthest_deviations moved moved_farthest"""
ESTIMATES = """loss perplexity reference_perplexity perplexity_ratio kl top1_agreement flipped lost
    gained"""

# Arguments, in which words in capitals stand for paths; and the keys, in any order.
KEYS = {
    "compress DENSE OUT --k 6": SUMMARY,
    "compress DENSE OUT --dry-run": """n_tensors n_clustered n_weights dense_bytes n_shards
        largest_shard_bytes shares makespan_seconds mean_seconds imbalance""",
    "inspect CLUSTERED": f"tensors kept base kinds {SUMMARY}",
    "inspect CLUSTERED --tensor lm_head": f"{RECORD} protected centroids",
    "verify CLUSTERED": "ok failures n_tensors n_files",
    "decompress CLUSTERED OUT": "output_bytes seconds n_tensors",
    "calibrate DENSE OUT --text TEXT": """text n_tokens whole_model output_bytes seconds
        peak_rss_bytes""",
    "eval CLUSTERED --text TEXT --reference DENSE --context 16 --windows 2": f"""model reference
        text context dtype n_windows_asked n_windows n_tokens kl_median kl_99 tasks scoring_seconds
        seconds {ESTIMATES} {" ".join(f"{name}_standard_error" for name in ESTIMATES.split())}""",
    "generate DENSE model --max-tokens 2": "text n_prompt_tokens n_tokens seconds",
    "heal CLUSTERED OUT --teacher DENSE --text TEXT --steps 1 --context 16": """improved
        perplexity_before perplexity_after teacher_perplexity gap_closed loss_before loss_after
        n_trained steps best_step crossings looks output_bytes training_seconds seconds""",
    "study list": "plans edits corrections",
}


@pytest.mark.parametrize("command", KEYS)
def test_keys_stay(command, isotone, language_models, tmp_path):
    paths = {
        "DENSE": language_models.dense,
        "CLUSTERED": language_models.clustered,
        "TEXT": language_models.text,
        "OUT": tmp_path / "out",
    }
    run = isotone(*(paths.get(word, word) for word in command.split()), "--json")
    assert run.code in (0, 1), run.err  # healing for one step may bring no gain
    assert run.out.count("\n") == 1
    assert {*KEYS[command].split()} <= run.json.keys()


def test_keys_of_one_clustered_tensor_and_one_kind(isotone, language_models):
    found = isotone("inspect", language_models.clustered, "--json").json
    assert all({*RECORD.split()} == row.keys() for row in found["tensors"])
    kinds = {kind["kind"] for kind in found["kinds"]}
    assert {"lm_head", "model.embed_tokens", "mlp.up_proj", "self_attn.q_proj"} <= kinds
