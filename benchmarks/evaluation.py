"""Measure what judging costs beyond the forward passes that it must make anyway.

For each window, alternately: the model alone; `score`; the model and its reference alone;
`compare`. The overhead is the ratio of the seconds, and of the core seconds, which other work on
the machine disturbs less. On a busy machine set OMP_NUM_THREADS=1 as well, because threads that
wait for one another also wait for all other work. The protocol is that of `isotone eval`: float32.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from inputs.smollm2_dense import DEFAULT, smollm2_dense
from isotone.evaluation.metrics import perplexity
from isotone.evaluation.scoring import compare, score, scoring_mode
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import load_model
from isotone.models.prefix import find_prefix
from isotone.models.text import BUILTIN, Tokens, cut_windows, encode, read_text
from measuring.tables import print_table, write_results


def forward(windows: Tokens, *models: PreTrainedModel) -> None:
    """What there is to do without any judging: logits, made and dropped."""
    for model in models:
        with scoring_mode(model):
            model(input_ids=torch.from_numpy(windows), use_cache=False)


class Stopwatch:
    """Sums the clock's and the cores' seconds of named work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.core_seconds: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], object]) -> None:
        """Run the work and add what it took."""
        clock, cores = time.monotonic(), time.process_time()
        work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - clock
        spent = time.process_time() - cores
        self.core_seconds[name] = self.core_seconds.get(name, 0.0) + spent

    def overhead(self, name: str, bare: str) -> dict[str, float]:
        """Seconds of one work against those of another, and how much more it took."""
        return {
            "bare_seconds": self.seconds[bare],
            "seconds": self.seconds[name],
            "overhead": self.seconds[name] / self.seconds[bare] - 1,
            "core_overhead": self.core_seconds[name] / self.core_seconds[bare] - 1,
        }


def main() -> None:
    """Measure on SmolLM2, which is its own reference: the work is the same."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="made where it is not there")
    parser.add_argument("--text", default=BUILTIN, metavar="FILE")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=8)
    given = parser.parse_args()
    files = open_files(smollm2_dense(given.model))
    tokens, prefix = encode(files.tokenizer, read_text(given.text)), find_prefix(files).tokens
    windows = cut_windows(tokens, given.context, given.windows, given.text, prefix)
    model, reference = load_model(files), load_model(files)
    forward(windows[:1], model, reference)  # warm
    watch = Stopwatch()
    for at in range(len(windows)):
        one = windows[at : at + 1]
        watch.time("forward", lambda one=one: forward(one, model))
        watch.time("score", lambda one=one: score(model, one, n_prefix=len(prefix)))
        watch.time("two forwards", lambda one=one: forward(one, model, reference))
        watch.time("compare", lambda one=one: compare(model, reference, one, n_prefix=len(prefix)))
    cases = {
        "perplexity": watch.overhead("score", "forward"),
        "with a reference": watch.overhead("compare", "two forwards"),
    }
    print_table(
        f"{len(windows)} windows of {given.context} tokens",
        ("", "forward passes, s", "judging, s", "overhead", "of core seconds"),
        [
            (
                name,
                case["bare_seconds"],
                case["seconds"],
                f"{case['overhead']:+.1%}",
                f"{case['core_overhead']:+.1%}",
            )
            for name, case in cases.items()
        ],
    )
    found = perplexity(score(model, windows, n_prefix=len(prefix))).perplexity
    print(f"perplexity {found.value:.3f} ± {found.standard_error:.3f}")
    protocol = {
        "text": Path(given.text).name,
        "windows": len(windows),
        "context": given.context,
        "threads": torch.get_num_threads(),
    }
    numbers = {"perplexity": vars(found), "cases": cases}
    write_results("evaluation", {"protocol": protocol, **numbers})


if __name__ == "__main__":
    main()
