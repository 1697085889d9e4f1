"""`isotone generate`: continue a text with a model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from isotone.cli.console import hide_foreign_bars, print_json
from isotone.cli.options import Device, Dtype, Json, Model

# isotone.evaluation imports torch, which takes seconds, so the command imports it when it runs.

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")]
Chat = Annotated[bool, typer.Option("--chat", help="Answer PROMPT as one turn of a conversation.")]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Chat template to use, where the tokenizer has several; implies --chat.",
    ),
]
MaxTokens = Annotated[int, typer.Option(metavar="N", help="Most tokens to generate.")]
Temperature = Annotated[
    float,
    typer.Option(
        metavar="T",
        help="0 takes the most likely token each time; above 0, tokens are drawn at random.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the random draws.")]


def generate(
    model: Model,
    prompt: Prompt,
    chat: Chat = False,
    template: Template = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue PROMPT with MODEL.

    The text is printed while it is generated.
    """
    hide_foreign_bars()
    from isotone.evaluation.generate import generate as run_generate

    result = run_generate(
        model,
        prompt,
        chat=chat,
        template=template,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        dtype=dtype,
        device=device,
        listener=None if json else _show,
    )
    if json:
        print_json(result)
    else:
        _show("\n")


def _show(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()
