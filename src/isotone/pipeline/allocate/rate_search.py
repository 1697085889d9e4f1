"""Finds the Lagrange multiplier of a bit at which a whole model takes a size that is asked for.

With one multiplier for the whole model, the last bit spent on each matrix lowers the weighted error
by the same amount, so no exchange of bits between matrices could lower the sum: that is what makes
an allocation optimal (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of
quantizers", 1988). The size is probed at a few multipliers (`rate_probe.py`); between them, bits
are nearly linear in the logarithm of the multiplier.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from isotone.pipeline.allocate.rate_probe import RateProbe

_REFERENCE_LAMBDA, _REFERENCE_BITS = 0.02, 3.3  # of a normal distribution
_SPREAD = np.array([-1.5, -0.5, 0.5, 1.5]) * math.log(1.5)  # of the multipliers of the first probe
_MOST_LAMBDAS = 24
_SMOOTH = 8
_CLOSE = 0.001  # relative to the size: near enough
_FARTHER = 2.0  # at least, in logarithms, from all multipliers tried to the next one: 1.4 bits
_LOWEST, _HIGHEST = math.log(1e-12), math.log(1e6)  # where everything is exact, or one value
_NARROW = 1e-3  # logarithms of multipliers between which there must be a jump


def lambda_for(bits: float, bits_at: RateProbe) -> float:
    """Return the Lagrange multiplier at which a model takes so many bits per weight on disk.

    Where even the finest clustering takes fewer bits (a matrix of three distinct values needs no
    more than 1.6), it is a multiplier low enough for that. Where the size jumps over the one that
    is asked for, as it may with few or odd matrices, it is the multiplier on the nearer side.

    Parameters
    ----------
    bits : float
        Bits per weight, 1 to 8.
    bits_at : RateProbe
        The bits per weight of the model at given multipliers.

    Returns
    -------
    float
        The multiplier, in the unit of `EntropyMethod`.

    Raises
    ------
    InputError
        If a matrix cannot be clustered, see `isotone.core.fit`.

    Notes
    -----
    A probe reads every matrix up to five times, and clusters it at each multiplier. Most models
    need one probe at four multipliers and one to three at a single one; those read again only the
    matrices whose summaries did not fit in 256 MB, which holds a few hundred. Beyond that, memory
    does not depend on the model.
    """
    known: dict[float, float] = {}  # bits per weight by the logarithm of the multiplier
    centre = math.log(_REFERENCE_LAMBDA) + (_REFERENCE_BITS - bits) * math.log(4.0)
    wanted: NDArray[np.float64] | None = centre + _SPREAD
    while wanted is not None and len(known) < _MOST_LAMBDAS:
        found = bits_at(np.exp(wanted))
        known |= dict(zip(wanted.tolist(), found.tolist(), strict=True))
        wanted = _next(known, bits)
    return math.exp(min(known, key=lambda log: (abs(known[log] - bits), log)))


def _next(known: dict[float, float], bits: float) -> NDArray[np.float64] | None:
    """Return the logarithm of the multiplier to try next, or None where a known one will do.

    known: bits per weight by the logarithms of the multipliers that were tried.
    """
    if any(abs(found - bits) <= _CLOSE * bits for found in known.values()):
        return None
    logs = sorted(known)
    low = max((log for log in logs if known[log] > bits), default=None)
    high = min((log for log in logs if known[log] < bits), default=None)
    extent = max(logs[-1] - logs[0], _FARTHER)
    if low is None:
        return np.array([logs[0] - extent]) if logs[0] > _LOWEST else None
    if high is None:
        return np.array([logs[-1] + extent]) if logs[-1] < _HIGHEST else None
    if abs(high - low) < _NARROW:
        return None
    share = 0.5  # a size that is not met soon has a jump to it, which halving finds soonest
    if len(known) < _SMOOTH:
        share = (known[low] - bits) / (known[low] - known[high])
    return np.array([low + (high - low) * min(max(share, 0.1), 0.9)])
