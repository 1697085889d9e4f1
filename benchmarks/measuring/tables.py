"""What a benchmark leaves: a table on stdout, and its numbers as JSON in benchmarks/results."""

import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

DIRECTORY = Path(__file__).resolve().parents[1] / "results"

_LOAD_AVERAGE = os.getloadavg()[0]
_PACKAGES = ("isotone", "numpy", "torch", "transformers", "coremltools", "scikit-learn")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: its first column is text, the others numbers; floats get four digits."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=max(140, Console().width)).print(table)


def write_results(name: str, content: dict[str, object]) -> Path:
    """Write the numbers of a finished benchmark, and what they were taken on."""
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{name}.json"
    text = json.dumps({"taken": _taken(), **content}, indent=1) + "\n"
    path.write_text(text, "utf-8")
    print(f"written to {path}")
    return path


def _taken() -> dict[str, object]:
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_at_start": _LOAD_AVERAGE,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    name = next((line.partition(":")[2].strip() for line in lines if line[:10] == "model name"), "")
    return f"{name}, {'AVX-512' if 'avx512bw' in flags else 'no AVX-512'}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
