"""How much an error in each tensor counts, and the Lagrange multiplier that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import heads
from isotone.plan.tensors import Clustered

_HEAD = 16.0


@dataclass(frozen=True)
class Importance:
    """The importance of a relative error in each tensor, as it is assumed without calibration.

    The relative error of a weight is its squared error, divided by the mean square of its tensor's
    weights. It counts 1 in every matrix but the head: errors of the matrix that produces the logits
    meet no later layer that could absorb them, and reach every prediction. On SmolLM2 at one size
    for all its matrices, counting them 16 times takes perplexity from 48.9 to 31.1 (tied) and from
    48.3 to 30.2 (untied); 4 and 64 times come between. An embedding that is only read needs nothing
    of the kind.

    Attributes
    ----------
    heads : frozenset of str
        The names of the tensors that produce logits.
    """

    heads: frozenset[str]

    @classmethod
    def assumed(cls, source: Source, tied: Mapping[str, str]) -> Importance:
        """Return the importance for the tensors of a model.

        Parameters
        ----------
        source : Source
            The model.
        tied : mapping of str to str
            For each tensor that repeats another one, the name of the other.

        Returns
        -------
        Importance
            The importance, a function of tensors.
        """
        return cls(frozenset(heads(source, tied)))

    def without(self, costed: Set[str]) -> Importance:
        """Return the importance where what errors cost is known for some tensors.

        Parameters
        ----------
        costed : set of str
            The names of those tensors.

        Returns
        -------
        Importance
            The importance, which assumes nothing of those tensors.
        """
        return Importance(self.heads - costed)

    def __call__(self, tensor: TensorInfo) -> float:
        """Return the importance of a tensor."""
        return _HEAD if tensor.name in self.heads else 1.0


@dataclass(frozen=True)
class SharedLambda:
    """One Lagrange multiplier for a whole model, from which that of each tensor follows.

    Attributes
    ----------
    model : float
        The multiplier of the model, for tensors of importance 1.
    importance : Importance
        The importance of each tensor.
    """

    model: float
    importance: Importance

    def apply(self, plan: Clustered) -> Clustered:
        """Return the plan of a tensor at this multiplier.

        Parameters
        ----------
        plan : Clustered
            The tensor to be clustered.

        Returns
        -------
        Clustered
            The same with `settings.lambda_`.
        """
        lambda_ = self.model / self.importance(plan.tensor)
        return replace(plan, settings=replace(plan.settings, lambda_=lambda_))
