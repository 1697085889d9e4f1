"""Compress a language model, verify the result, and let both models continue a text.

python examples/compress_and_generate.py MODEL OUT --bits 3.6
"""

import argparse

import isotone


def main() -> None:
    """Read the command line and run the example."""
    parser = argparse.ArgumentParser(description="Compress a language model and try it.")
    parser.add_argument("model", help="a dense model directory, or a hub id")
    parser.add_argument("out", help="the directory to write")
    parser.add_argument("--bits", type=float, default=3.6, help="bits on disk for each weight")
    parser.add_argument("--prompt", default="The three primary colors are")
    options = parser.parse_args()

    summary = isotone.compress(options.model, options.out, bits=options.bits)
    ratio = summary.source_bytes / summary.output_bytes
    print(f"{summary.bits_per_weight:.2f} bits per weight; {ratio:.2f} times smaller")

    verification = isotone.verify(options.out, against=options.model)
    if not verification.ok:
        raise SystemExit("\n".join(verification.failures))

    for directory in (options.model, options.out):
        text = isotone.generate(directory, options.prompt, max_tokens=24).text
        print(f"{directory}: {options.prompt}{text}")


if __name__ == "__main__":
    main()
