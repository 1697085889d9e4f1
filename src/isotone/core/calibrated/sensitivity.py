"""What an error in a matrix costs: what flows into it, and how much depends on its outputs.

A matrix W turns an input x into W x. An error E in it turns the output by E x, and costs

    loss(E) = 1/2 sum_i outputs[i] (E H E^T)_ii,    H = mean of x x^T,

where outputs[i] is the mean square of the gradient of the loss with respect to output i. If the
predictions are drawn from the model itself, this is its Fisher information, taken as a product of a
part of the inputs and a part of the outputs (K-FAC). The loss is then, to second order, the
divergence of the changed model's predictions from those of the true one, in nats a token. So the
losses of different matrices can be compared, and added.

References
----------
Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature",
arXiv 1503.05671.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_TOKENS = 256
"""Inputs over which a second moment must have been taken to be of use."""


@dataclass(frozen=True)
class Sensitivity:
    """What errors in one matrix cost.

    Attributes
    ----------
    inputs : float32 array, `[columns, columns]`
        The mean of x x^T over the inputs.
    outputs : float32 array, `[rows]`
        The mean squared gradient of the loss with respect to each output.
    n_tokens : int
        The number of tokens over which `inputs` was taken.
    """

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]
    n_tokens: int

    def of_rows(self, first: int, n_rows: int) -> Sensitivity:
        """Return what errors in some rows cost.

        Parameters
        ----------
        first : int
            The first row.
        n_rows : int
            The number of rows.

        Returns
        -------
        Sensitivity
            It shares the arrays.
        """
        return Sensitivity(self.inputs, self.outputs[first : first + n_rows], self.n_tokens)

    def expected_loss(self, errors: NDArray[np.float32]) -> float:
        """Return what errors cost.

        Parameters
        ----------
        errors : float32 array, `[rows, columns]`
            The error of each weight.

        Returns
        -------
        float
            Nats a token.

        Notes
        -----
        The cost is rows * columns^2 multiplications.
        """
        turned = np.einsum("ij,ij->i", errors @ self.inputs, errors, dtype=np.float64)
        return 0.5 * float(turned @ self.outputs)

    @property
    def unit_loss(self) -> float:
        """What uncorrelated errors of 1 in all weights cost, in nats a token."""
        return (
            0.5
            * float(np.sum(self.outputs, dtype=np.float64))
            * float(np.trace(self.inputs.astype(np.float64)))
        )

    def flaw(self) -> str | None:
        """Return why the statistics are of no use, or None if they are of use."""
        if not (np.isfinite(self.inputs).all() and np.isfinite(self.outputs).all()):
            return "what flowed through it was not finite"
        if self.n_tokens < FEWEST_TOKENS:
            return f"it saw {self.n_tokens} tokens, fewer than {FEWEST_TOKENS}"
        if not self.inputs.any():
            return "its inputs were always zero"
        if not self.outputs.any():
            return "nothing depended on its outputs"
        return None
