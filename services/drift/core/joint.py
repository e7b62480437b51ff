"""The data family on all features together: can a classifier tell today's rows from the reference?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]
from scipy.stats import rankdata  # type: ignore[import-untyped]

from services.drift.core.kernels import Floats, Ints

EVERY = 250
"""Rows between two looks."""
CURRENT = 500
"""Newest rows that are compared with the reference."""
FURTHEST = 5.0
"""Deviations at which a value is clipped: one absurd row must not be the whole covariance."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Row `row` of the call raised an alarm: the AUC, what chance reaches, which features tell."""

    row: int
    since_sequence: int
    statistic: float
    threshold: float
    reference: dict[str, Any]
    current: dict[str, Any]
    telling: tuple[int, ...]
    detector: str = "domain_classifier"


def expand(rows: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Standardised values and their squares, float64[n, 2k]: a shift and a change of spread are both seen.

    A constant feature and a value that is not finite count as the mean.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.nan_to_num((rows - mean) / deviation, nan=0.0, posinf=FURTHEST, neginf=-FURTHEST)
    scaled = np.clip(scaled, -FURTHEST, FURTHEST)
    return np.hstack([scaled, scaled**2])


def direction(reference: Floats, current: Floats) -> Floats:
    """Fisher's discriminant with a ridge of a tenth: the direction in which the two samples lie apart most."""
    centred = np.vstack([reference - reference.mean(0), current - current.mean(0)])
    spread = centred.T @ centred / len(centred)
    ridge = 0.1 * max(float(np.trace(spread)) / len(spread), 1e-9)
    gap = current.mean(0) - reference.mean(0)
    solved: Floats = np.linalg.solve(spread + ridge * np.eye(len(spread)), gap)
    return solved


def cross_auc(reference: Floats, current: Floats) -> tuple[float, Floats, Floats, Floats]:
    """AUC of the discriminant, each half judged by the one of the other half; weights and all judgements.

    >>> random = np.random.default_rng(3)
    >>> same, other = random.normal(size=(600, 4)), random.normal(size=(400, 4)) + 0.5
    >>> bool(cross_auc(same, other)[0] > 0.6), bool(abs(cross_auc(same[:300], same[300:])[0] - 0.5) < 0.1)
    (True, True)
    """
    total, weights = 0.0, np.zeros(reference.shape[1])
    judged = [np.zeros(len(reference)), np.zeros(len(current))]
    for half in (0, 1):
        own = direction(reference[1 - half :: 2], current[1 - half :: 2])
        weights += own / 2
        judged[0][half::2], judged[1][half::2] = reference[half::2] @ own, current[half::2] @ own
        total += auc(judged[0][half::2], judged[1][half::2]) / 2
    return total, weights, judged[0], judged[1]


def auc(negatives: Floats, positives: Floats) -> float:
    """Area under the ROC curve by ranks, ties half."""
    ranks = rankdata(np.concatenate([negatives, positives]))[len(negatives) :].sum()
    n, m = len(negatives), len(positives)
    return float((ranks - m * (m + 1) / 2) / (n * m))


def auc_by_chance(reference: int, current: int, probability: float) -> float:
    """The cross-fitted AUC that two halves of these sizes pass by chance with this probability.

    Mann and Whitney's variance (n + m + 1) / (12 n m) a half; the halves are taken as one, as each chose the
    direction for the other.
    """
    n, m = reference / 2, current / 2
    return 0.5 - float(ndtri(probability)) * math.sqrt((n + m + 1) / (12 * n * m))


class Joint:
    """Keeps a reference of the first rows and the newest rows; looks every `EVERY` rows.

    `rows_between`: rows without change in which it may raise one false alarm. After an alarm the reference begins
    anew.
    """

    def __init__(self, features: int, reference: int, rows_between: float) -> None:
        self._features, self._size = features, reference
        self._probability = EVERY / rows_between
        self.reset()

    def reset(self) -> None:
        """Forget what was usual."""
        self._n = 0
        self._reference = np.zeros((0, self._features))
        self._current = np.zeros((0, self._features))
        self._marks: Ints = np.zeros(0, np.int64)

    def step(self, features: Floats, sequence: Ints) -> list[Apart]:
        """Fold rows float64[n, features]; what was found."""
        found: list[Apart] = []
        start = 0
        while start < len(features):
            end = min(len(features), start + EVERY - self._n % EVERY)
            self._take(features[start:end], sequence[start:end])
            start = end
            if self._n % EVERY == 0 and len(self._current) == CURRENT:
                apart = self._look(end - 1)
                if apart is not None:
                    found.append(apart)
                    self.reset()
        return found

    def _take(self, features: Floats, sequence: Ints) -> None:
        self._n += len(features)
        room = self._size - len(self._reference)
        self._reference = np.vstack([self._reference, features[:room]]) if room > 0 else self._reference
        rest = slice(max(0, room), None)
        self._current = np.vstack([self._current, features[rest]])[-CURRENT:]
        self._marks = np.concatenate([self._marks, sequence[rest]])[-CURRENT:]

    def _look(self, row: int) -> Apart | None:
        finite = np.where(np.isfinite(self._reference), self._reference, np.nan)
        empty = np.isnan(finite).all(0)
        finite[:, empty] = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = np.nanmean(finite, 0), np.nanstd(finite, 0)
        deviation = np.where((deviation > 0) & np.isfinite(deviation), deviation, np.inf)
        reference, current = (expand(rows, mean, deviation) for rows in (self._reference, self._current))
        area, weights, before, after = cross_auc(reference, current)
        limit = auc_by_chance(len(reference), len(current), self._probability)
        if area <= limit:
            return None
        edges = np.unique(np.quantile(before, np.arange(1, 10) / 10))
        strength = np.abs(weights).reshape(2, self._features).max(0)
        return Apart(
            row,
            int(self._marks[0]),
            area,
            limit,
            _histogram(before, edges),
            _histogram(after, edges),
            tuple(np.argsort(-strength, kind="stable")[:3].tolist()),
        )

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {
            "n": self._n,
            "reference": self._reference,
            "current": self._current,
            "marks": self._marks,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._n, self._marks = state["n"], state["marks"]
        self._reference, self._current = state["reference"], state["current"]


def _histogram(values: Floats, edges: Floats) -> dict[str, Any]:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return {"edges": [float(edge) for edge in edges], "counts": counts.tolist()}
