"""Two histograms over the same bins: how far apart, and how far chance alone takes them."""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2  # type: ignore[import-untyped]

from services.drift.core.kernels import Floats, Ints


def psi(reference: Ints, current: Ints) -> float:
    """Population stability index of two counts int64[bins]; half a row in each bin, so that none is empty.

    >>> psi(np.array([50, 50]), np.array([50, 50])), round(psi(np.array([500, 500]), np.array([800, 200])), 2)
    (0.0, 0.41)
    """
    p, q = _smooth(reference), _smooth(current)
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon(reference: Ints, current: Ints) -> float:
    """Jensen-Shannon divergence in nats, 0 to ln 2.

    >>> round(jensen_shannon(np.array([1, 0]), np.array([0, 1])), 3)
    0.693
    """
    p, q = reference / max(1, reference.sum()), current / max(1, current.sum())
    middle = (p + q) / 2
    return float((_kl(p, middle) + _kl(q, middle)) / 2)


def _smooth(counts: Ints) -> Floats:
    shares: Floats = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return shares


def _kl(p: Floats, q: Floats) -> float:
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


@lru_cache(maxsize=1024)
def chance(bins: int, reference: int, current: int, probability: float) -> float:
    """What the PSI of `bins` bins passes by chance with this probability; Jensen-Shannon passes an eighth of it.

    Both are to first order (1/n + 1/m) times a chi-square variable of bins - 1 degrees of freedom.
    """
    if bins < 2 or min(reference, current) == 0:
        return math.inf
    return float(chi2.isf(probability, bins - 1)) * (1.0 / reference + 1.0 / current)


def homogeneity(reference: Ints, current: Ints) -> float:
    """Likelihood ratio statistic that two counts share one distribution: chi-square of bins - 1 degrees."""
    both = reference + current
    return 2.0 * float(_entropy_terms(reference) + _entropy_terms(current) - _entropy_terms(both))


def _entropy_terms(counts: Ints) -> float:
    some = counts[counts > 0].astype(np.float64)
    total = some.sum()
    return float(np.sum(some * np.log(some / total))) if total else 0.0


def quantile_groups(counts: Ints, groups: int) -> npt.NDArray[np.int64]:
    """Cuts of ascending bins into groups of about equal count: where each group but the first begins.

    A bin that holds a group's share by itself stands alone: what lies on either side of it is seen.

    >>> quantile_groups(np.array([5, 5, 5, 5]), 2), quantile_groups(np.array([0, 9, 1, 0]), 2)
    (array([2]), array([1, 2]))
    """
    total = max(1, counts.sum())
    share = np.cumsum(counts) / total
    cuts = np.searchsorted(share, np.arange(1, groups) / groups - 1e-12, side="left") + 1
    alone = np.flatnonzero(counts * groups >= total)
    cuts = np.concatenate([cuts, alone, alone + 1])
    return np.unique(cuts[(cuts > 0) & (cuts < len(counts))]).astype(np.int64)


def outside_limit(reference: int, current: int, probability: float) -> int:
    """How many of `current` values may lie beyond the furthest of `reference` ones: more have this probability.

    Of n + m like values the j furthest are all among the newer m with a probability below (m / (n + m))^j.

    >>> outside_limit(3000, 1000, 1e-6)
    10
    """
    if reference <= 0 or current <= 0:
        return current + 1
    return math.ceil(math.log(probability) / math.log(current / (reference + current)))
