"""What an error in a matrix costs: what flows into it, and how much depends on what comes out.

A matrix W turns an input x into W x. An error E in it turns the output by E x, and costs in the end

    damage(E) = 1/2 sum_i outputs[i] (E H E^T)_ii,    H = mean of x x^T,

where outputs[i] is the mean square of the gradient of the loss with respect to output i. With
predictions drawn from the model itself that is its Fisher information, taken as a product of an
input's and an output's part (Martens and Grosse, "K-FAC", arXiv 1503.05671): damage is then, to
second order, the divergence of the changed model's predictions from the true one's, in nats a
token. So damages of different matrices can be compared, and added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_TOKENS = 256
"""Inputs that a second moment must have been taken over to be of use."""


@dataclass(frozen=True)
class Sensitivity:
    """What errors in one matrix cost.

    inputs: [columns, columns] float32, the mean of x x^T. outputs: [rows] float32, the mean squared
    gradient of the loss. n_tokens: that `inputs` was taken over.
    """

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]
    n_tokens: int

    def expected_loss(self, errors: NDArray[np.float32]) -> float:
        """What errors [rows, columns] cost, in nats a token. Cost: rows * columns^2."""
        turned = np.einsum("ij,ij->i", errors @ self.inputs, errors, dtype=np.float64)
        return 0.5 * float(turned @ self.outputs)

    @property
    def unit_loss(self) -> float:
        """What errors of 1 in all weights cost, where they have nothing to do with each other."""
        return (
            0.5
            * float(np.sum(self.outputs, dtype=np.float64))
            * float(np.trace(self.inputs.astype(np.float64)))
        )

    def flaw(self) -> str | None:
        """Why it says nothing of use, or None where it does."""
        if not (np.isfinite(self.inputs).all() and np.isfinite(self.outputs).all()):
            return "what flowed through it was not finite"
        if self.n_tokens < FEWEST_TOKENS:
            return f"it saw {self.n_tokens} tokens, fewer than {FEWEST_TOKENS}"
        if not self.inputs.any():
            return "its inputs were always zero"
        if not self.outputs.any():
            return "nothing depended on its outputs"
        return None
