"""What the models of this process read: the token ids that reach any embedding."""

from __future__ import annotations

from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def seen_tokens():
    """A list that fills with an array `[batch, length]` for each forward pass in a `with`.

    The passes of a generation after its first, which read one token, are left out.
    """
    seen = []

    def note(module, given):
        if isinstance(module, nn.Embedding) and given and given[0].ndim == 2:
            tokens = given[0].detach().cpu().numpy()
            if tokens.shape[1] > 1:
                seen.append(tokens)

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()
