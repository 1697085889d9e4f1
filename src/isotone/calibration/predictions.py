"""What the predictions of a model say of each token of its vocabulary.

A head turns hidden states into logits z, one for each token of the vocabulary, and the loss is the
cross-entropy of softmax(z). For predictions drawn from the model itself, the mean squared gradient
of the loss with respect to the logit of token t is the mean of p_t (1 - p_t): the Fisher
information of every row of the head, computed from the softmax and not from samples, so it is known
for tokens that were never drawn. The mean of p_t is how often the model expects to read and write
the token.
"""

from __future__ import annotations

import torch

_PIECE_POSITIONS = 64  # of the text whose probabilities are in memory at once


class Predictions:
    """Adds up what the predicted probabilities say of each token.

    Attributes
    ----------
    n_positions : int
        The number of predictions.
    information : float64 Tensor, `[vocabulary]`
        The sum of the squared gradients of the head's outputs.
    frequency : float64 Tensor, `[vocabulary]`
        The sum of the probabilities.

    Parameters
    ----------
    n_tokens : int
        The size of the vocabulary.
    """

    def __init__(self, n_tokens: int) -> None:
        self.n_positions = 0
        self.information = torch.zeros(n_tokens, dtype=torch.float64)
        self.frequency = torch.zeros(n_tokens, dtype=torch.float64)

    def add(self, outputs: torch.Tensor, logits: torch.Tensor, first: int = 0) -> None:
        """Add the predictions of one window.

        Parameters
        ----------
        outputs : Tensor, `[1, positions, vocabulary]`
            What the head computed.
        logits : Tensor, `[1, positions, vocabulary]`
            What the model made of it element by element: `outputs` itself, or with the graph that
            leads back to it, because some models scale logits or bound them.
        first : int
            The first position that counts.

        Notes
        -----
        The memory beyond the arguments is that of 64 positions.
        """
        slopes = None
        if logits is not outputs:
            (slopes,) = torch.autograd.grad(logits.sum(), outputs)
            slopes = slopes[0, first:]
        rows = logits.detach()[0, first:]
        for start in range(0, len(rows), _PIECE_POSITIONS):
            piece = slice(start, start + _PIECE_POSITIONS)
            shares = torch.softmax(rows[piece].float(), -1)
            self.frequency += shares.sum(0, dtype=torch.float64).cpu()
            squares = shares * (1.0 - shares)
            if slopes is not None:
                squares *= slopes[piece].float().square()
            self.information += squares.sum(0, dtype=torch.float64).cpu()
        self.n_positions += len(rows)
