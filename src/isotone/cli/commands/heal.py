"""`isotone heal`: train the values of a clustered model, while its ranks stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, say, size, stdout, warn
from isotone.cli.options import Bos, Device, Directory, Dtype, Json, OutPath, Overwrite
from isotone.cli.tables import pairs_table
from isotone.models.prefix import shown

if TYPE_CHECKING:
    from isotone.healing.result import Healing
    from isotone.healing.state import Validation

# isotone.healing imports torch, which takes seconds, so the command imports it when it runs.

TrainingText = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="A UTF-8 text to train on, 'builtin' for the text that Python ships, or 'self' for "
        "text that the teacher writes.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="The dense model whose predictions are to be matched."),
]
HeldOut = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A text for validation; by default the end of the training text is held out.",
    ),
]
Steps = Annotated[int, typer.Option(metavar="N", help="Most training steps.")]
TrainingContext = Annotated[int, typer.Option(metavar="N", help="Length of a window, in tokens.")]
Batch = Annotated[
    int, typer.Option(metavar="N", help="Windows in a step, over all processes together.")
]
LearningRate = Annotated[
    float,
    typer.Option(
        metavar="RATE",
        help="Highest learning rate, relative to the spacing of each codebook's centroids.",
    ),
]
Train = Annotated[
    str,
    typer.Option(
        metavar="PARTS", help="What to train: codebook, scale and norm, separated by commas."
    ),
]
Order = Annotated[
    str,
    typer.Option(
        metavar="keep|free",
        help="Keep the order of the centroids, or leave it free to see what that changes.",
    ),
]
EvaluateEvery = Annotated[
    int, typer.Option(metavar="N", help="Steps between validations on the held-out text.")
]
Patience = Annotated[
    int,
    typer.Option(
        metavar="N", help="Stop after so many validations without a new best; 0: never stop early."
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="Seed of the order of the windows, and of --text self.")
]
GradientCheckpointing = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing", help="Use less memory, at the cost of one more forward pass."
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full", help="Write a complete directory, instead of codebooks that refer to DIR."
    ),
]


def heal(
    directory: Directory,
    out: OutPath,
    text: TrainingText = "self",
    teacher: Teacher = None,
    held_out: HeldOut = None,
    steps: Steps = 100,
    context: TrainingContext = 512,
    batch: Batch = 1,
    learning_rate: LearningRate = 0.05,
    train: Train = "codebook",
    order: Order = "keep",
    evaluate_every: EvaluateEvery = 20,
    patience: Patience = 3,
    seed: Seed = 0,
    gradient_checkpointing: GradientCheckpointing = False,
    full: Full = False,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train the codebooks of DIR into OUT.

    The ranks stay as they are. Exit 1 if the held-out loss did not fall; nothing is written then.
    """
    hide_foreign_bars()
    from isotone.healing.run import heal as run_heal
    from isotone.healing.settings import HealSettings

    how: dict[str, Any] = {"text": text, "teacher": teacher, "held_out": held_out}
    how |= {"train": [part.strip() for part in train.split(",") if part.strip()], "order": order}
    how |= {"context": context, "bos": bos, "dtype": dtype, "device": device, "full": full}
    how |= {"gradient_checkpointing": gradient_checkpointing, "overwrite": overwrite}
    how["settings"] = HealSettings(steps, batch, learning_rate, evaluate_every, patience, seed)
    how["listener"] = lambda validation: _show(validation, steps)
    with progress_bar() as progress:
        result = run_heal(directory, out, progress=progress, **how)
    if result is not None:  # None: another process of this training prints
        _print_result(result, str(out), json=json)


def _show(validation: Validation, steps: int) -> None:
    """Print one line on stderr for each validation, for terminals and logs alike."""
    loss = validation.training_loss
    trained = "" if loss is None else f"  training loss {loss:.4f}"
    warn(
        f"step {validation.step:>4} of {steps}  held-out loss {validation.loss:.4f}  "
        f"perplexity {validation.perplexity:,.3f}{trained}  {validation.seconds:,.0f} s"
    )


def _print_result(result: Healing, out: str, *, json: bool) -> None:
    if json:
        print_json(result)
    else:
        say(out)
        stdout.print(pairs_table(_rows(result)))
    if not result.improved:
        warn(
            "isotone: healing did not lower the held-out loss, so nothing was written: give more "
            "text, a teacher, or a lower learning rate"
        )
        raise typer.Exit(1)


def _rows(result: Healing) -> dict[str, str]:
    rows = {
        "held-out perplexity before": f"{result.perplexity_before:,.3f}",
        "held-out perplexity after": f"{result.perplexity_after:,.3f}",
    }
    if result.teacher_perplexity is not None:
        rows["held-out perplexity of the teacher"] = f"{result.teacher_perplexity:,.3f}"
    if result.gap_closed is not None:
        rows["share of that difference closed"] = f"{result.gap_closed:.1%}"
    rows["held-out loss"] = f"{result.loss_before:.4f} to {result.loss_after:.4f}"
    rows["windows begin with"] = shown(result.bos)
    rows["numbers trained"] = f"{result.n_trained:,}"
    rows["steps"] = f"{result.steps}, the best {result.best_step}"
    crossings = result.crossings
    if crossings.pairs:
        rows["neighbours that free training crosses"] = (
            f"{crossings.crossed:,} of {crossings.pairs:,}, {crossings.ever:,} at some time"
        )
    if result.improved:
        rows["written"] = size(result.output_bytes)
    rows["time"] = f"{result.seconds:.1f} s, {result.training_seconds:.1f} s of it steps"
    return rows
