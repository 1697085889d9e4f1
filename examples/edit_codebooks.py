"""Edit codebooks of a live clustered model, and see what keeping or breaking their order does.

    python examples/edit_codebooks.py CLUSTERED

The edits are those of `isotone study`; after each `with` the model is as it was, bit for bit.
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import isotone

TEXT = "The sun rises in the east and sets in the west."
EDITS = ("sorted_normal", "even_spacing", "reverse", "permute")


def main() -> None:
    """Read the command line and run the example."""
    parser = argparse.ArgumentParser(description="Compare edits of one layer's codebooks.")
    parser.add_argument("model", help="a directory that isotone compressed")
    parser.add_argument("--layer", type=int, default=1)
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32")
    tokens = AutoTokenizer.from_pretrained(options.model)(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        print(f"{'as it is':14} loss {model(tokens, labels=tokens).loss:.3f}")
        for edit in EDITS:
            codebooks = isotone.study.edited_codebooks(model, edit, layers=[options.layer])
            with isotone.swapped(model, codebooks):
                keeps = "keeps" if "order" in isotone.study.EDITS[edit].keeps else "breaks"
                loss = model(tokens, labels=tokens).loss
                print(f"{edit:14} loss {loss:.3f}, {keeps} the order")


if __name__ == "__main__":
    main()
