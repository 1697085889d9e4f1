"""Healing from end to end, by the command line and by the library, on a tiny language model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone as package
from isotone.checkpoint.opening import open_compressed
from isotone.errors import FormatError, InputError
from isotone.healing import training
from isotone.healing.order import n_crossed
from isotone.healing.run import heal
from isotone.healing.settings import Settings
from isotone.models.plugin.config import IsotoneConfig
from tests.builders import language_model
from tests.builders.checkpoints import tree

CONTEXT = 32
SETTINGS = Settings(steps=24, evaluate_every=8, learning_rate=0.1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A dense model, clusterings of it with and without factors, and a text."""
    at = tmp_path_factory.mktemp("heal")
    dense = language_model.write_language_model(at / "dense")
    package.compress(dense, at / "clustered", k=5, scale="none")
    package.compress(dense, at / "scaled", k=4, scale="both")
    (at / "text.txt").write_text(language_model.text(3000), "utf-8")
    return SimpleNamespace(
        dense=dense, clustered=at / "clustered", scaled=at / "scaled", text=at / "text.txt"
    )


def healed(models, out, **changes):
    options = {"text": models.text, "teacher": models.dense, "context": CONTEXT}
    options |= {"settings": SETTINGS, "directory": models.clustered}
    return heal(out=out, **options | changes)


def arguments(models, out):
    return (
        *("heal", models.clustered, out, "--text", models.text, "--teacher", models.dense),
        *(
            "--context",
            CONTEXT,
            "--steps",
            SETTINGS.steps,
            "--evaluate-every",
            8,
            "--learning-rate",
            0.1,
        ),
    )


@pytest.fixture(scope="module")
def done(models):
    """A healed directory beside the others, and what healing it came to. Not to be written to."""
    out = models.clustered.parent / "healed"
    return SimpleNamespace(out=out, result=healed(models, out))


def loaded(directory, **options):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **options)


def test_the_command_prints_one_object_and_reports_as_it_goes(models, tmp_path, isotone):
    run = isotone(*arguments(models, tmp_path / "out"), "--full", "--json")
    assert run.code == 0, run.err
    result = run.json
    assert result["improved"]
    assert result["loss_after"] < 0.9 * result["loss_before"]
    assert result["steps"] == SETTINGS.steps
    assert [look["step"] for look in result["looks"]] == [0, 8, 16, 24]
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


def test_assignments_and_protected_weights_stay(models, done):
    before = loaded(models.clustered, quantization_config=IsotoneConfig(residency="packed"))
    after = loaded(done.out, quantization_config=IsotoneConfig(residency="packed"))
    changed = 0
    for (name, one), (_, other) in zip(
        before.state_dict().items(), after.state_dict().items(), strict=True
    ):
        if name.endswith("codebook"):
            changed += not torch.equal(one, other)
            assert n_crossed(other.numpy()) == 0
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


def encoded(models):
    from isotone.models.language_model.files import load_tokenizer
    from isotone.models.text import encode

    return encode(load_tokenizer(models.dense), models.text.read_text("utf-8"))


def test_a_seed_gives_the_same_bytes_twice_and_another_one_others(models, done):
    again, other = done.out.with_name("again"), done.out.with_name("other")
    healed(models, again)
    assert tree(again) == tree(done.out)
    healed(models, other, settings=replace(SETTINGS, seed=1))
    file = "model.safetensors"
    assert (other / file).read_bytes() != (done.out / file).read_bytes()


def test_killed_it_goes_on_as_if_nothing_had_happened(models, done, tmp_path):
    """SIGKILL once the first state has been written, in a process of its own."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "isotone.cli.main", *map(str, arguments(models, out))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    state = tmp_path / "out.partial" / ".training.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert state.exists()
    assert not out.exists()
    run = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    looks = [look["step"] for look in json.loads(run.stdout)["looks"]]
    assert looks == [0, 8, 16, 24]
    assert "step    0" not in run.stderr
    assert (out / "model.safetensors").read_bytes() == (done.out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("n_saved", [1, 2])
def test_interrupted_after_a_look_the_result_is_the_same(models, done, monkeypatch, n_saved):
    out, dump, saved = done.out.with_name(f"interrupted{n_saved}"), training.Training.dump, []

    def interrupted(self):
        if len(saved) == n_saved:
            raise KeyboardInterrupt
        saved.append(1)
        return dump(self)

    monkeypatch.setattr(training.Training, "dump", interrupted)
    with pytest.raises(KeyboardInterrupt):
        healed(models, out)
    monkeypatch.setattr(training.Training, "dump", dump)
    result = healed(models, out)
    assert result.crossings == done.result.crossings
    assert tree(out) == tree(done.out)


def test_healing_that_does_harm_writes_nothing_and_says_so(models, tmp_path, isotone):
    """Its teacher is the clustered model itself: nothing can be nearer to it than it is."""
    run = isotone(*arguments(models, tmp_path / "out"), "--teacher", models.clustered, "--json")
    assert run.code == 1
    assert not run.json["improved"]
    assert run.json["output_bytes"] == 0
    assert not list(tmp_path.iterdir())
    assert "did not lower the held-out loss, so nothing was written" in run.err.splitlines()[-1]


def test_it_stops_when_it_gets_no_better_and_keeps_the_best(models, tmp_path):
    settings = Settings(400, evaluate_every=2, patience=2, learning_rate=0.2)
    result = healed(models, tmp_path / "out", settings=settings)
    assert result.steps < 400
    best = min(result.looks, key=lambda look: look.loss)
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
    settings = Settings(60, learning_rate=0.1, evaluate_every=60)
    result = healed(models, tmp_path / "out", order="free", settings=settings, full=True)
    assert result.crossings.ever > 0
    opened = open_compressed(tmp_path / "out")
    for record in opened.manifest.clustered:
        values = opened.values(record, opened.packed(record))
        assert n_crossed(values.codebook) == 0


def test_a_healed_model_can_be_healed_again(models, done, isotone):
    out = done.out.parent / "twice"
    result = healed(models, out, directory=done.out, settings=Settings(8, seed=3))
    assert result.loss_before == pytest.approx(done.result.loss_after, rel=1e-5)
    assert isotone("verify", out).code == 0


def test_gradient_checkpointing_changes_nothing(models, done, tmp_path):
    result = healed(models, tmp_path / "out", gradient_checkpointing=True)
    found = [look.loss for look in result.looks]
    assert found == pytest.approx([look.loss for look in done.result.looks], rel=1e-4)


def by_processes(n, models, out, *options):
    """`isotone heal` in n processes over gloo, as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(n)]
    command += ["--master_port", str(port), "-m", "isotone.cli.main"]
    command += [*map(str, arguments(models, out)), "--steps", "8", *options, "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize("batch", [1, 2])
def test_two_processes_do_what_one_does(models, tmp_path, batch):
    """Each takes its windows of a batch, which for one of them may be none."""
    settings = replace(SETTINGS, steps=8, batch=batch)
    alone = healed(models, tmp_path / "alone", settings=settings)
    run = by_processes(2, models, tmp_path / "both", "--batch", str(batch))
    assert run.returncode == 0, run.stderr[-3000:]
    (line,) = run.stdout.splitlines()
    result = json.loads(line)
    assert result["loss_before"] == pytest.approx(alone.loss_before, rel=1e-5)
    assert result["loss_after"] == pytest.approx(alone.loss_after, rel=1e-3)
    assert result["output_bytes"] > 0
    assert sum(line.startswith("step ") for line in run.stderr.splitlines()) == 2


def test_an_error_of_one_process_is_that_of_all(models, done):
    run = by_processes(2, models, done.out)
    assert run.returncode != 0
    assert run.stdout == ""
    lines = [line for line in run.stderr.splitlines() if line.startswith("isotone: ")]
    assert lines
    assert all("exists; choose another OUT" in line for line in lines)


REFUSED = {
    "dense": (lambda m: {"directory": m.dense}, "is dense; expected what isotone compress wrote"),
    "no teacher": (lambda _: {"text": "self", "teacher": None}, "give --text or --teacher"),
    "no such text": (lambda m: {"text": m.text.parent / "none.txt"}, "no such file"),
    "long": (lambda _: {"context": 65}, "65 tokens, and .* takes at most 64"),
    "short": (lambda _: {"context": 1}, "expected 2 tokens or more"),
    "part": (lambda _: {"train": ("codebook", "bias")}, "expected some of codebook,scale,norm"),
    "nothing": (lambda _: {"train": ()}, "expected some of"),
    "no scale": (lambda _: {"train": ("scale",)}, "names 'scale', and this model has no factors"),
    "order": (lambda _: {"order": "loose"}, "expected keep or free"),
    "steps": (lambda _: {"settings": Settings(steps=0)}, "steps is 0; expected 1 or more"),
    "rate": (lambda _: {"settings": Settings(learning_rate=1.5)}, "learning_rate is 1.5"),
    "seed": (lambda _: {"settings": Settings(seed=-1)}, "seed is -1"),
    "dtype": (lambda _: {"dtype": "float16"}, "too small for float16"),
    "device": (lambda _: {"device": "mps"}, "has no float64"),
    "held out": (lambda _: {"held_out": "self"}, "the teacher writes for training"),
    "patience": (lambda _: {"settings": Settings(patience=-1)}, "patience is -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(models, tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        healed(models, tmp_path / "out", **changes(models))
    assert not list(tmp_path.iterdir()), "the corrected command would be refused"


def test_a_teacher_with_another_vocabulary_is_refused(models, tmp_path):
    other = language_model.write_language_model(
        tmp_path / "other", language_model.tokenizer(n_tokens=280)
    )
    with pytest.raises(InputError, match="must share the model's vocabulary"):
        healed(models, tmp_path / "out", teacher=other)


def test_bad_input_is_one_line_and_exit_code_two(models, tmp_path, isotone):
    run = isotone("heal", models.dense, tmp_path / "out", "--text", "builtin")
    assert (run.code, run.out, len(run.err.splitlines())) == (2, "", 1)


def test_the_teacher_is_not_written_over(models, tmp_path):
    copy = shutil.copytree(models.dense, tmp_path / "dense")
    with pytest.raises(InputError, match="is the model itself or lies in it"):
        healed(models, copy / "out", teacher=copy)


@pytest.mark.parametrize("name", [".training.pt", ".self-text.npy"])
def test_what_is_damaged_of_an_interrupted_run_is_named(models, tmp_path, monkeypatch, name):
    def interrupted(self, save, *_):
        save(self.dump())
        raise KeyboardInterrupt

    run = training.Training.run
    monkeypatch.setattr(training.Training, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        healed(models, tmp_path / "out", text="self")
    monkeypatch.setattr(training.Training, "run", run)
    path = tmp_path / "out.partial" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=name + r".*damaged.*remove .*and run again"):
        healed(models, tmp_path / "out", text="self")


def test_a_model_of_odd_width_is_healed_in_half_precision(tmp_path):
    """Rows whose ranks do not fill bytes, norms and factors in another dtype than they train in."""
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
    calls, loss = [], training._loss

    def nan_later(*given):
        calls.append(1)
        return loss(*given) * (float("nan") if len(calls) > 12 else 1.0)

    monkeypatch.setattr(training, "_loss", nan_later)
    with pytest.raises(InputError, match=r"the loss is nan at step 5; give a lower learning rate"):
        healed(models, tmp_path / "out")
