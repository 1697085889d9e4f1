"""A claim of the paper as a row of a table, and how it is judged by a share."""

from __future__ import annotations

from dataclasses import dataclass

NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class Claim:
    """A row of the table: what the paper says, what this model shows, and by how much.

    Attributes
    ----------
    name : str
        The name of the claim.
    paper : str
        What the paper says.
    shows : str
        What this model shows.
    figures : tuple of str
        The figures, a line for each edit or K; empty where nothing was measured.
    """

    name: str
    paper: str
    shows: str
    figures: tuple[str, ...]

    @property
    def is_measured(self) -> bool:
        """Whether any run bears on the claim."""
        return bool(self.figures)


def verdict(share: float) -> str:
    """Return whether a claim holds, in words.

    Parameters
    ----------
    share : float
        The fraction of the comparisons that agree with the claim.

    Returns
    -------
    str
        The claim holds from 0.9 on, not up to 0.1, and in part between.
    """
    if share >= 0.9:
        return "Holds."
    return "Holds in part." if share > 0.1 else "Does not hold."
