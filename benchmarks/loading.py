"""Measure how long a clustered model takes to load, its memory and its speed, beside the dense one.

Dense and clustered models are loaded alternately, several times; the best of each counts. A time
ends when every page of every weight has been touched once, because transformers maps a dense
checkpoint into memory and has read nothing of it when `from_pretrained` returns. A checkpoint that
is in the page cache and is used as it is stored still costs a dense load next to nothing, neither
reading nor copying. So the script also measures loads that convert to float32, loads that find
nothing in the page cache, and the whole process, imports included.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import isotone
from inputs.smollm2_dense import DEFAULT, smollm2_dense
from measuring.command import isotone as run_isotone
from measuring.tables import print_table, write_results

PAGE_BYTES = 4096
PROMPT_TOKENS = 8
NEW_TOKENS = 24
PROCESS = """
import sys, isotone
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1])
"""

Numbers = dict[str, float]


def weights(model: Any) -> list[torch.Tensor]:
    """Everything that a model holds in memory, tied tensors once."""
    return [*model.parameters(), *model.buffers()]


def load(directory: Path, **options: object) -> Any:
    """A model, every page of its weights touched."""
    model = AutoModelForCausalLM.from_pretrained(directory, **options)
    for tensor in weights(model):
        if tensor.numel():
            tensor.detach().reshape(-1).view(torch.uint8)[::PAGE_BYTES].max()
    return model


def run_process(directory: Path) -> None:
    """The same in a process of its own."""
    subprocess.run([sys.executable, "-c", PROCESS, str(directory)], check=True, capture_output=True)


def forget(directory: Path) -> None:
    """Have the system drop the files of a directory from its page cache."""
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def core_seconds() -> float:
    """What this process and those it started have had of the cores."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def best_of(
    repeat: int, first: Callable[[Path], object], load: Callable[[Path], object], places: list[Path]
) -> list[Numbers]:
    """The best time of a load from each place, taken in turn; `first` comes before, untimed."""
    runs: list[list[Numbers]] = [[] for _ in places]
    for _ in range(repeat):
        for place, found in zip(places, runs, strict=True):
            first(place)
            clock, cores = time.monotonic(), core_seconds()
            load(place)
            taken = {"seconds": time.monotonic() - clock, "core_seconds": core_seconds() - cores}
            found.append(taken)
    return [{key: min(run[key] for run in found) for key in found[0]} for found in runs]


def measure_loading(dense: Path, clustered: Path, repeat: int) -> dict[str, dict[str, Numbers]]:
    """Seconds of each kind of load."""
    nothing = lambda _: None  # noqa: E731
    kinds = {
        "as stored, cached": (nothing, load),
        "to float32, cached": (nothing, lambda place: load(place, dtype=torch.float32)),
        "as stored, from disk": (forget, load),
        "whole process, cached": (nothing, run_process),
    }
    load(dense), load(clustered)  # libraries and page cache are warm
    found = {}
    for kind, (first, act) in kinds.items():
        theirs, ours = best_of(repeat, first, act, [dense, clustered])
        ratio = {key: ours[key] / theirs[key] for key in ours}
        found[kind] = {"dense": theirs, "clustered": ours, "ratio": ratio}
    return found


def measure_running(dense: Path, clustered: Path) -> dict[str, Numbers]:
    """Weights in memory, and greedy generation of one sequence, of each residency."""
    packed = isotone.IsotoneConfig(residency="packed")
    models = {
        "dense": load(dense),
        "clustered, dense residency": load(clustered),
        "clustered, packed residency": load(clustered, quantization_config=packed),
    }
    prompt = torch.arange(100, 100 + PROMPT_TOKENS).unsqueeze(0)
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    found = {}
    for name, model in models.items():
        model.generate(prompt, max_new_tokens=2, **options)
        clock, cores = time.monotonic(), core_seconds()
        model.generate(prompt, max_new_tokens=NEW_TOKENS, **options)
        found[name] = {
            "weight_bytes": sum(tensor.nbytes for tensor in weights(model)),
            "tokens_per_second": NEW_TOKENS / (time.monotonic() - clock),
            "tokens_per_core_second": NEW_TOKENS / (core_seconds() - cores),
        }
    return found


def main() -> None:
    """Measure on SmolLM2, compressed with the defaults."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="made where it is not there")
    parser.add_argument("--clustered", type=Path, default=DEFAULT.with_name("smollm2-k16"))
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    dense = smollm2_dense(arguments.model)
    if not arguments.clustered.is_dir():
        run_isotone("compress", dense, arguments.clustered, "--k", arguments.k)
    logging.disable_progress_bar()
    loading = measure_loading(dense, arguments.clustered, arguments.repeat)
    running = measure_running(dense, arguments.clustered)
    print_table(
        f"Loading {dense.name}, best of {arguments.repeat}",
        ["", "dense s", "clustered s", "ratio", "dense core s", "clustered core s", "ratio"],
        [
            [kind, *(found[who][key] for key in ("seconds", "core_seconds") for who in found)]
            for kind, found in loading.items()
        ],
    )
    whole = running["dense"]["weight_bytes"]
    print_table(
        "Running it",
        ["", "weights MB", "of dense", "tokens/s", "tokens/core s"],
        [
            [name, n["weight_bytes"] / 1e6, n["weight_bytes"] / whole, n["tokens_per_second"],
             n["tokens_per_core_second"]]
            for name, n in running.items()
        ],
    )  # fmt: skip
    content = {"k": arguments.k, "repeat": arguments.repeat, "loading": loading, "running": running}
    write_results("loading", content)


if __name__ == "__main__":
    main()
