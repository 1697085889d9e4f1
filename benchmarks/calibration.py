"""Measure what calibration is worth on SmolLM2's linear matrices, with the model's own text.

Each size is compressed from statistics that `isotone calibrate` collected once, and is judged
beside the same size without calibration; the whole command with `--calibrate self` is timed at the
first size. Questions are asked of the dense model and at 3.6 bits. The model at 3.1 bits is also
healed. The shaken model computes the same function with rescaled channels (inputs/shaken.py).

Finished steps are kept in work/calibration, so that an interrupted run goes on. Steps that are left
out keep their figures in benchmarks/results; each figure says when it was taken.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from inputs.shaken import shaken
from inputs.smollm2_dense import DEFAULT, smollm2_dense
from measuring.command import isotone
from measuring.tables import DIRECTORY, print_table, write_results

WORK = DEFAULT.with_name("calibration")
STATISTICS = WORK / "statistics"
LINEAR = ("--exclude", "*embed*")
SIZES = (3.1, 2.6, 3.6, 4.1)
WHOLE = (4.0, 3.1)  # sizes at which all matrices are compressed
FIGURES = ("perplexity", "kl", "top1_agreement")


def compressed(
    name: str, *arguments: object, model: Path | None = None, linear: bool = True
) -> dict:
    """Compress (SmolLM2, or another model) into WORK/name, and what that came to."""
    source = model or smollm2_dense()
    matrices = LINEAR if linear else ()
    run = isotone("compress", source, WORK / name, "--overwrite", *matrices, *arguments)
    calibration = run.output["calibration"] or {}
    return {
        "bits_per_weight": run.output["bits_per_weight"],
        "seconds": run.seconds,
        "peak_rss_bytes": run.peak_rss_bytes,
        "fallbacks": calibration.get("fallbacks"),
    }


def judged(model: Path, text: object, *options: object) -> dict:
    """Quality on a text, beside the dense model."""
    options = ("--text", text, "--reference", smollm2_dense(), *options)
    found = isotone("eval", model, *options).output
    return {key: found[key] for key in FIGURES}


def answered(model: Path, tasks: list[Path]) -> dict:
    """Shares of right answers, with their standard errors."""
    scores = isotone("eval", model, "--tasks", ",".join(map(str, tasks))).output["tasks"]
    return {task: {key: row[key] for key in ("acc", "acc_stderr")} for task, row in scores.items()}


def steps(given: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    """Everything that is measured, by name, in order."""
    whole = ("--bits", SIZES[0], "--calibrate", "self")
    todo: dict[str, Callable[[], dict]] = {
        "statistics": lambda: isotone("calibrate", smollm2_dense(), STATISTICS, *LINEAR).output,
    }
    for bits in SIZES:
        for name, options in ((f"{bits}", ("--calibrate", STATISTICS)), (f"{bits} plain", ())):
            todo[name] = lambda name=name, bits=bits, options=options: {
                **compressed(name, "--bits", bits, *options),
                **judged(WORK / name, given.text),
            }
    for name, options in (("K = 16", ("--calibrate", STATISTICS)), ("K = 16 plain", ())):
        todo[name] = lambda name=name, options=options: {
            **compressed(name, "--k", 16, *options),
            **judged(WORK / name, given.text),
        }
    for name in ("3.1", "3.1 plain"):
        todo[f"{name}, other text"] = lambda name=name: judged(
            WORK / name, "builtin", "--windows", 4
        )
    for name, options in (("shaken 3.1", ("--calibrate", "self")), ("shaken 3.1 plain", ())):
        todo[name] = lambda name=name, options=options: {
            **compressed(
                name, "--bits", 3.1, *options, model=shaken(smollm2_dense(), WORK / "shaken")
            ),
            **judged(WORK / name, given.text),
        }
    for bits in WHOLE:
        for kind, options in (("calibrated", ("--calibrate", "self")), ("plain", ())):
            name = f"all matrices, {bits} {kind}"
            todo[name] = lambda name=name, bits=bits, options=options: {
                **compressed(name, "--bits", bits, *options, linear=False),
                **judged(WORK / name, "builtin", "--windows", 4),
            }
    todo["whole command"] = lambda: compressed("whole", *whole)
    if given.tasks:
        todo["questions, dense"] = lambda: answered(smollm2_dense(), given.tasks)
        todo["questions, 3.6"] = lambda: answered(WORK / "3.6", given.tasks)
    if given.train:
        todo["healed, 3.1"] = lambda: healed(given)
    return todo


def healed(given: argparse.Namespace) -> dict:
    """3.1 bits after 100 steps, at the rate of a model that is close to the dense one."""
    out = WORK / "3.1.healed"
    shutil.rmtree(out, ignore_errors=True)
    options = ("--train", "codebook,norm", "--learning-rate", 0.02, "--steps", 100)
    options += ("--text", given.train, "--teacher", smollm2_dense(), "--overwrite")
    run = isotone("heal", WORK / "3.1", out, *options)
    size = isotone("inspect", out).output["bits_per_weight"]
    return {"seconds": run.seconds, "bits_per_weight": size, **judged(out, given.text)}


def main() -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", default="builtin", metavar="FILE", help="text to judge on")
    parser.add_argument("--tasks", nargs="*", type=Path, default=[], help="JSON lines, for eval")
    parser.add_argument("--train", metavar="FILE", help="text to heal on; none: not healed")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="some of the steps")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    kept = WORK / "results.json"
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for name, measure in steps(given).items():
        if name not in found and (given.only is None or name in given.only):
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            found[name] = {"at": at, **measure()}
            kept.write_text(json.dumps(found, indent=1), "utf-8")
    show(found)
    write_results("calibration", {"text": Path(given.text).name, "steps": earlier() | found})


def earlier() -> dict[str, dict]:
    """What the last results have, each step with the time at which it was taken."""
    path = DIRECTORY / "calibration.json"
    last = json.loads(path.read_text("utf-8")) if path.exists() else {"steps": {}}
    return {name: {"at": last["taken"]["at"], **step} for name, step in last["steps"].items()}


def show(found: dict[str, dict]) -> None:
    """Print what was found as a table."""
    rows = [
        (
            name,
            *(f"{run[key]:.4g}" if key in run else "" for key in ("bits_per_weight", *FIGURES)),
            f"{run['seconds']:.0f}" if "seconds" in run else "",
            f"{run['peak_rss_bytes'] / 1e9:.1f}" if "peak_rss_bytes" in run else "",
            "; ".join(
                f"{task} {row['acc']:.4f}"
                for task, row in run.items()
                if isinstance(row, dict) and "acc" in row
            ),
        )
        for name, run in found.items()
    ]
    columns = ("", "bits", "perplexity", "KL", "same top-1", "seconds", "peak GB", "questions")
    print_table("calibrated by the model's own text", columns, rows)


if __name__ == "__main__":
    main()
