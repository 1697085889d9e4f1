"""Measure what training nothing but the centroids brings back, on SmolLM2's linear matrices.

Each clustering is healed by the command as people run it, and judged before and after: on the test
text, on a text of another kind (the one that Python ships), and on questions. The cost of a step is
measured beside a step of full fine-tuning of the dense model, alternating, on the same batch.
Finished steps are kept in work/healing, so that an interrupted run goes on.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

from inputs.smollm2_dense import DEFAULT, smollm2_dense
from measuring.command import isotone
from measuring.tables import print_table, write_results

WORK = DEFAULT.with_name("healing")
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "healing-smollm2.png"
VARIANTS = {
    "K = 16": (("--k", 16, "--scale", "none"), ()),
    "K = 32": (("--k", 32, "--scale", "none"), ()),
    "K = 16, text self": (("--k", 16, "--scale", "none"), ("--text", "self")),
    "3.6 bits": (("--bits", 3.6), ()),
    "K = 16, with factors": (("--k", 16), ()),
    "K = 8": (("--k", 8, "--scale", "none"), ()),
    "K = 64": (("--k", 64, "--scale", "none"), ()),
    "3.1 bits": (("--bits", 3.1), ()),
}
WITH_QUESTIONS = ("K = 16", "K = 16, text self", "3.6 bits")


def judged(model: Path, given: argparse.Namespace, questions: Path | None) -> dict:
    """Quality on the test text, on another one, and on questions."""
    dense = smollm2_dense()
    test = isotone("eval", model, "--text", given.test, "--reference", dense).output
    other = isotone("eval", model, "--text", "builtin", "--windows", 4, "--reference", dense).output
    found = {
        **{name: test[name] for name in ("perplexity", "kl", "top1_agreement")},
        "reference_perplexity": test["reference_perplexity"],
        "other_perplexity": other["perplexity"],
        "other_kl": other["kl"],
    }
    if questions is not None:
        (scores,) = isotone("eval", model, "--tasks", questions).output["tasks"].values()
        found |= {name: scores[name] for name in ("acc", "acc_stderr", "n")}
    return found


def measure(label: str, given: argparse.Namespace, found: dict) -> dict:
    """Compress, judge (where the same clustering has not been), heal, judge."""
    compressing, healing = VARIANTS[label]
    name = label.replace(" ", "").replace("=", "").replace(",", "-")
    base, out = WORK / f"{name}.base", WORK / name
    shutil.rmtree(base, ignore_errors=True)
    size = isotone("compress", smollm2_dense(), base, "--exclude", "*embed*", *compressing).output
    questions = _questions(given) if label in WITH_QUESTIONS else None
    same = [run for other, run in found.items() if VARIANTS.get(other, ((), ()))[0] == compressing]
    before = same[0]["before"] if same else judged(base, given, questions)
    run = isotone(
        *("heal", base, out, "--text", given.train, "--teacher", smollm2_dense()),
        *("--steps", given.steps, "--dtype", given.dtype, "--overwrite", *healing),
    )
    return {
        "bits_per_weight": size["bits_per_weight"],
        "dtype": given.dtype,
        "before": before,
        "after": judged(out, given, questions),
        "healing": run.output,
        "seconds": run.seconds,
        "peak_rss_bytes": run.peak_rss_bytes,
    }


def _questions(given: argparse.Namespace) -> Path | None:
    """The first of them, in a file of their own."""
    if given.questions is None:
        return None
    some = WORK / given.questions.name
    lines = given.questions.read_text("utf-8").splitlines()[: given.n_questions]
    some.write_text("\n".join(lines) + "\n", "utf-8")
    return some


def step_cost(train: str, n_steps: int = 5) -> dict:
    """Seconds of a step of healing and of full fine-tuning, in turn, 512 tokens each."""
    # Here, for what this process holds counts towards the peaks of the commands that it runs.
    import torch
    from accelerate import Accelerator

    import isotone as package
    from isotone.checkpoint.opening import open_compressed
    from isotone.healing.loss import cross_entropy
    from isotone.healing.settings import HealSettings
    from isotone.healing.text import split
    from isotone.healing.trainable import open_for_training
    from isotone.healing.training import Training
    from isotone.models.language_model.files import open_files
    from isotone.models.language_model.load import load_model
    from isotone.models.prefix import find_prefix
    from isotone.models.text import encode, read_text

    base = WORK / "step"
    package.compress(smollm2_dense(), base, k=16, exclude=["*embed*"], overwrite=True)
    files = open_files(smollm2_dense())
    dense, teacher = load_model(files), load_model(files)
    student = load_model(open_files(base), residency="packed")
    manifest = open_compressed(base).manifest
    trainable = open_for_training(student, manifest, ["codebook"], "keep")
    tokens, prefix = encode(files.tokenizer, read_text(train)), find_prefix(files).tokens
    text = split(tokens, 512, train, prefix=prefix)
    healing = Training(Accelerator(cpu=True), student, teacher, trainable, text, HealSettings())
    tuner = torch.optim.AdamW(dense.parameters(), lr=1e-6)

    def tune() -> None:
        batch = torch.from_numpy(text.batch(0, 1, 0))
        cross_entropy(dense(input_ids=batch, use_cache=False).logits, batch).backward()
        tuner.step()
        tuner.zero_grad()

    seconds = {"healing": 0.0, "fine-tuning": 0.0}
    for number in range(n_steps + 1):
        for name, step in (("healing", healing.step), ("fine-tuning", tune)):
            started = time.monotonic()
            step()
            seconds[name] += (time.monotonic() - started) if number else 0.0  # the first warms up
    each = {name: total / n_steps for name, total in seconds.items()}
    return {"seconds": each, "ratio": each["healing"] / each["fine-tuning"]}


def main() -> None:
    """Measure all variants, or some."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", required=True, metavar="FILE", help="text to train on")
    parser.add_argument("--test", required=True, metavar="FILE", help="text to judge on")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="JSON lines, for eval")
    parser.add_argument("--n-questions", type=int, default=500)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--step", action="store_true", help="the cost of a step alone")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    kept = WORK / "results.json"
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    if given.step:
        found["step"] = step_cost(given.train)
        print(found["step"])
    for label in [] if given.step else given.only:
        if label not in found:
            found[label] = measure(label, given, found)
            kept.write_text(json.dumps(found, indent=1), "utf-8")
    kept.write_text(json.dumps(found, indent=1), "utf-8")
    _report(found, given)


def _report(found: dict, given: argparse.Namespace) -> None:
    rows = []
    for label in VARIANTS:
        if label not in found:
            continue
        before, after = found[label]["before"], found[label]["after"]
        gap = before["perplexity"] - before["reference_perplexity"]
        rows.append(
            (
                label,
                f"{found[label]['bits_per_weight']:.3f}",
                f"{before['perplexity']:.2f}",
                f"{after['perplexity']:.2f}",
                f"{(before['perplexity'] - after['perplexity']) / gap:.0%}",
                f"{before['kl']:.4f}",
                f"{after['kl']:.4f}",
                f"{before['other_perplexity']:.2f}",
                f"{after['other_perplexity']:.2f}",
                f"{before['acc']:.3f}" if "acc" in before else "",
                f"{after['acc']:.3f}" if "acc" in after else "",
                f"{found[label]['healing']['training_seconds']:.0f}",
            )
        )
    columns = ("", "bits", "perplexity", "healed", "closed", "KL", "healed", "other text", "healed")
    print_table("healing", (*columns, "questions", "healed", "seconds of steps"), rows)
    protocol = {
        **{"train": Path(given.train).name, "test": Path(given.test).name},
        **{"windows": 8, "context": 1024, "other": "builtin, 4 windows"},
    }
    write_results("healing", {"protocol": protocol, "variants": found})
    _draw({name: run["healing"]["looks"] for name, run in found.items() if name in VARIANTS})


def _draw(curves: dict) -> None:
    from isotone.reporting.page import write_chart
    from measuring.healing_chart import healing_chart

    chart = healing_chart(
        {name: curves[name] for name in VARIANTS if name in curves},
        title="SmolLM2-135M-Instruct: centroids trained, 512 tokens a step",
        caption="Perplexity of held-out text, relative to the gap between the clustered model and "
        "the dense one.",
    )
    _, png = write_chart(chart, WORK, "healing")
    shutil.copyfile(png, PICTURE)


if __name__ == "__main__":
    main()
