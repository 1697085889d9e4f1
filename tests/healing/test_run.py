"""Healing from end to end, by the command line and by the library, on a tiny language model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import isotone as package
from isotone.checkpoint.opening import open_compressed
from isotone.core.values import is_ascending
from isotone.errors import InputError
from isotone.healing import training
from isotone.healing.run import heal
from isotone.healing.settings import HealSettings
from isotone.models.plugin.config import IsotoneConfig
from tests.builders import language_model
from tests.builders.checkpoints import tree
from tests.builders.healings import CONTEXT, SETTINGS, arguments, encoded, healed, loaded


def test_the_command_prints_one_object_and_reports_as_it_goes(models, tmp_path, isotone):
    run = isotone(*arguments(models, tmp_path / "out"), "--full", "--json")
    assert run.code == 0, run.err
    result = run.json
    assert result["improved"]
    assert result["loss_after"] < 0.9 * result["loss_before"]
    assert result["steps"] == SETTINGS.steps
    assert [each["step"] for each in result["looks"]] == [0, 8, 16, 24]
    assert result["output_bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    lines = run.err.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("step    8 of 24  held-out loss ")
    assert isotone("verify", tmp_path / "out", "--against", models.dense).code == 0
    assert isotone("generate", tmp_path / "out", "the model", "--max-tokens", 3).code == 0


def test_people_get_a_table(models, tmp_path, isotone):
    run = isotone(*arguments(models, tmp_path / "out"), "--full")
    assert run.code == 0, run.err
    assert "held-out perplexity after" in run.out
    assert "neighbours that free training crosses" in run.out


def test_the_directory_holds_codebooks_that_name_their_base(models, done, isotone):
    base, opened = (open_compressed(at) for at in (models.clustered, done.out))
    assert opened.base.digest == base.digest
    size = (done.out / "model.safetensors").stat().st_size
    assert size < (models.clustered / "model.safetensors").stat().st_size / 4
    assert isotone("verify", done.out, "--against", models.dense).code == 0
    assert opened.manifest.arguments["heal"]["learning_rate"] == SETTINGS.learning_rate


def test_ranks_and_protected_weights_stay(models, done):
    before = loaded(models.clustered, quantization_config=IsotoneConfig(residency="packed"))
    after = loaded(done.out, quantization_config=IsotoneConfig(residency="packed"))
    changed = 0
    for (name, one), (_, other) in zip(
        before.state_dict().items(), after.state_dict().items(), strict=True
    ):
        if name.endswith("codebook"):
            changed += not torch.equal(one, other)
            assert is_ascending(other.numpy())
        else:
            assert torch.equal(one, other), name
    assert changed == len(open_compressed(models.clustered).manifest.clustered)


def test_the_figures_are_those_of_what_was_written(models, done):
    tokens = encoded(models)
    held = tokens[: len(tokens) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)[-8:]
    model = loaded(done.out)
    with torch.no_grad():
        tokens = torch.from_numpy(held)
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    assert done.result.perplexity_after == pytest.approx(float(loss.exp()), rel=1e-4)


def test_a_seed_gives_the_same_bytes_twice_and_another_one_others(models, done):
    again, other = done.out.with_name("again"), done.out.with_name("other")
    healed(models, again)
    assert tree(again) == tree(done.out)
    healed(models, other, settings=replace(SETTINGS, seed=1))
    file = "model.safetensors"
    assert (other / file).read_bytes() != (done.out / file).read_bytes()


def test_healing_that_does_harm_writes_nothing_and_says_so(models, tmp_path, isotone):
    """Its teacher is the clustered model itself: nothing can be nearer to it than it is."""
    run = isotone(*arguments(models, tmp_path / "out"), "--teacher", models.clustered, "--json")
    assert run.code == 1
    assert not run.json["improved"]
    assert run.json["output_bytes"] == 0
    assert not list(tmp_path.iterdir())
    assert "did not lower the held-out loss, so nothing was written" in run.err.splitlines()[-1]


def test_it_stops_when_it_gets_no_better_and_keeps_the_best(models, tmp_path):
    settings = HealSettings(400, evaluate_every=2, patience=2, learning_rate=0.2)
    result = healed(models, tmp_path / "out", settings=settings)
    assert result.steps < 400
    best = min(result.looks, key=lambda validation: validation.loss)
    assert result.best_step == best.step == result.steps - 4
    assert result.loss_after == best.loss


def test_without_a_teacher_the_text_itself_is_learnt(models, tmp_path):
    result = healed(models, tmp_path / "out", teacher=None)
    assert result.improved
    assert result.teacher_perplexity is None
    assert result.perplexity_after < result.perplexity_before
    assert result.loss_after == pytest.approx(np.log(result.perplexity_after))


def test_text_that_the_teacher_writes_heals_too(models, tmp_path):
    """Which is what is taken where no text is given."""
    result = heal(
        models.clustered, tmp_path / "out", teacher=models.dense, context=CONTEXT, settings=SETTINGS
    )
    assert result.loss_after < 0.9 * result.loss_before


def test_another_text_can_be_held_out(models, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(language_model.text(300, seed=9), "utf-8")
    held = healed(models, tmp_path / "out", held_out=other)
    assert held.perplexity_before != healed(models, tmp_path / "out2").perplexity_before


def test_scales_and_norms_can_be_trained_as_well(models, tmp_path, isotone):
    alone = healed(models, tmp_path / "alone", directory=models.scaled, full=True)
    parts = ("codebook", "scale", "norm")
    out = tmp_path / "all"
    everything = healed(models, out, directory=models.scaled, train=parts, full=True)
    assert everything.n_trained > 10 * alone.n_trained
    assert everything.loss_after < alone.loss_after
    assert isotone("verify", out).code == 0
    assert isotone("verify", out, "--against", models.dense).code == 0
    scales = loaded(out, quantization_config=IsotoneConfig(residency="packed")).state_dict()
    assert {t.dtype for name, t in scales.items() if name.endswith("row_scale")} == {torch.float16}
    with torch.no_grad():
        tokens = torch.from_numpy(encoded(models)[-CONTEXT:]).view(1, -1)
        plain, packed = (
            loaded(out, **options)(tokens).logits
            for options in ({}, {"quantization_config": IsotoneConfig(residency="packed")})
        )
    torch.testing.assert_close(plain, packed)


def test_free_centroids_may_cross_and_meet_in_what_is_written(models, tmp_path):
    settings = HealSettings(60, learning_rate=0.1, evaluate_every=60)
    result = healed(models, tmp_path / "out", order="free", settings=settings, full=True)
    assert result.crossings.ever > 0
    opened = open_compressed(tmp_path / "out")
    for record in opened.manifest.clustered:
        values = opened.values(record, opened.packed(record))
        assert is_ascending(values.codebook)


def test_a_healed_model_can_be_healed_again(models, done, isotone):
    out = done.out.parent / "twice"
    result = healed(models, out, directory=done.out, settings=HealSettings(8, seed=3))
    assert result.loss_before == pytest.approx(done.result.loss_after, rel=1e-5)
    assert isotone("verify", out).code == 0


def test_gradient_checkpointing_changes_nothing(models, done, tmp_path):
    result = healed(models, tmp_path / "out", gradient_checkpointing=True)
    found = [validation.loss for validation in result.looks]
    assert found == pytest.approx([validation.loss for validation in done.result.looks], rel=1e-4)


def test_a_model_of_odd_width_is_healed_in_half_precision(tmp_path):
    """Rows whose ranks do not fill bytes, norms and scales in another dtype than they train in."""
    shape = {"hidden_size": 36, "intermediate_size": 60}
    dense = language_model.write_language_model(tmp_path / "dense", **shape)
    package.compress(dense, tmp_path / "clustered", k=4, scale="both")
    (tmp_path / "text.txt").write_text(language_model.text(600), "utf-8")
    result = heal(
        tmp_path / "clustered",
        tmp_path / "out",
        text=tmp_path / "text.txt",
        teacher=dense,
        train=("codebook", "scale", "norm"),
        context=CONTEXT,
        settings=SETTINGS,
        dtype="bfloat16",
    )
    assert result.loss_after < result.loss_before


def test_a_matrix_of_zeros_is_left_alone(tmp_path):
    model = language_model.model()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
    model.save_pretrained(tmp_path / "dense")
    language_model.tokenizer().save_pretrained(tmp_path / "dense")
    package.compress(tmp_path / "dense", tmp_path / "clustered", k=4)
    result = heal(
        tmp_path / "clustered",
        tmp_path / "out",
        teacher=tmp_path / "dense",
        context=CONTEXT,
        settings=SETTINGS,
    )
    assert result.improved
    changed = open_compressed(tmp_path / "out").changed
    assert changed
    assert not [name for name in changed if "layers.0.self_attn.o_proj" in name]


def test_a_loss_that_is_not_finite_stops_it(models, tmp_path, monkeypatch):
    calls, loss = [], training.training_loss

    def nan_later(*given):
        calls.append(1)
        return loss(*given) * (float("nan") if len(calls) > 12 else 1.0)

    monkeypatch.setattr(training, "training_loss", nan_later)
    with pytest.raises(InputError, match=r"the loss is nan at step 5; give a lower learning rate"):
        healed(models, tmp_path / "out")
