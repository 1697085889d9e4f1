"""A prompt as one turn of a conversation, written out by a tokenizer's chat template.

Templates are programs that come with a model. They may refuse a conversation, and they differ in
what they take as the content of a message: a string, or a list of parts of which each has a type.
Which of the two a template reads is found by trying: the rendered text has to hold the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isotone.errors import InputError
from isotone.models.language_model.files import ModelFiles

_PLAIN = "leave out --chat to continue the prompt as plain text"


def render_chat(files: ModelFiles, prompt: str, template: str | None) -> str:
    """Return the text with which a model is asked to answer a prompt.

    Parameters
    ----------
    files : ModelFiles
        The model; its tokenizer has the template.
    prompt : str
        What the user says.
    template : str or None
        The name of the template, for a tokenizer that has several. By default the one that is named
        `default`, or the only one.

    Returns
    -------
    str
        The conversation up to the answer, special tokens included.

    Raises
    ------
    InputError
        If there is no such template, or it refuses the prompt or leaves it out.
    """
    source = _template(files, template)
    reasons = []
    for content in (prompt, [{"type": "text", "text": prompt}]):
        try:
            text = files.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=source,
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:  # a template is a program, and may fail in any way
            reasons.append(str(error))
            continue
        if prompt.strip() in text:
            return str(text)
        reasons.append("it leaves the prompt out")
    raise InputError(
        f"{files.directory}: its chat template cannot write the prompt out: {reasons[0]}; {_PLAIN}"
    )


def _template(files: ModelFiles, name: str | None) -> str:
    """Return the source of the template of this name, or the one that applies without a name."""
    found: Any = files.tokenizer.chat_template
    if not found:
        raise InputError(f"{files.directory}: its tokenizer has no chat template; {_PLAIN}")
    templates: Mapping[str, str] = found if isinstance(found, Mapping) else {"default": found}
    if name is None:
        name = next(iter(templates)) if len(templates) == 1 else "default"
    if name not in templates:
        raise InputError(
            f"{files.directory}: its tokenizer has no chat template {name!r}; choose one with "
            f"--template: {', '.join(sorted(templates))}"
        )
    return templates[name]
