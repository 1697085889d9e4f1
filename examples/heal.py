"""Compress a language model and heal the result: train its codebooks, and nothing else.

    python examples/heal.py MODEL WORK --text FILE --steps 50

WORK/healed holds only codebooks, and refers to WORK/clustered.
"""

import argparse
from pathlib import Path

import isotone


def main() -> None:
    """Read the command line and run the example."""
    parser = argparse.ArgumentParser(description="Compress a language model and heal it.")
    parser.add_argument("model", help="a dense model directory, or a hub id")
    parser.add_argument("work", type=Path, help="the directory to write to")
    parser.add_argument("--text", default="builtin", help="a UTF-8 text to train on")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--context", type=int, default=256, help="tokens in a window")
    options = parser.parse_args()

    clustered, healed = options.work / "clustered", options.work / "healed"
    isotone.compress(options.model, clustered, k=16, overwrite=True)
    result = isotone.heal(
        clustered,
        healed,
        teacher=options.model,
        text=options.text,
        context=options.context,
        settings=isotone.HealSettings(steps=options.steps),
        overwrite=True,
    )
    if result is not None:
        print(f"perplexity {result.perplexity_before:.2f}, healed {result.perplexity_after:.2f}")


if __name__ == "__main__":
    main()
