"""Metrics of scores against outcomes, over many weightings of the rows at once: what a bootstrap asks for.

A weighting says how often each row counts; a row that was drawn twice has weight 2. Every measure gives one
value a weighting, NaN where it is undefined (a class that is not there).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CLIP = 1e-15
_CHUNK = 4_000_000
"""Weights looked at together: bounds memory, not results."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Outcomes int64[n] as class indices and probabilities float64[n, classes]."""

    labels: Ints
    probabilities: Floats

    @staticmethod
    def of(labels: npt.NDArray[np.integer], scores: npt.NDArray[np.floating]) -> "Scored":
        """From scores [n] of the positive class, or [n, classes]."""
        wide = scores.astype(np.float64)
        if wide.ndim == 1:
            wide = np.column_stack([1.0 - wide, wide])
        return Scored(labels.astype(np.int64), wide)

    def take(self, rows: npt.NDArray[np.bool_]) -> "Scored":
        """The rows of a mask."""
        return Scored(self.labels[rows], self.probabilities[rows])


Measure = Callable[[Scored, Floats], Floats]


def _mean(values: Floats, weights: Floats) -> Floats:
    result: Floats = weights @ values / weights.sum(axis=1)
    return result


def log_loss(scored: Scored, weights: Floats) -> Floats:
    """Mean negative log likelihood of the outcome, clipped to 1e-15 from 0 and 1."""
    rows = np.arange(len(scored.labels))
    chosen = np.clip(scored.probabilities[rows, scored.labels], _CLIP, 1 - _CLIP)
    return _mean(-np.log(chosen), weights)


def accuracy(scored: Scored, weights: Floats) -> Floats:
    """Share of rows whose likeliest class is the outcome; with two classes 0.5 is the positive one."""
    wide = scored.probabilities
    likeliest = np.argmax(wide, axis=1)
    predicted = (wide[:, 1] >= 0.5).astype(np.int64) if wide.shape[1] == 2 else likeliest
    return _mean((predicted == scored.labels).astype(np.float64), weights)


def _by_score(truth: Floats, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weights of positives and of negatives [b, groups] at each distinct score, highest first."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ranked) != 0]))
    sorted_weights = weights[:, order]
    hits = np.add.reduceat(sorted_weights * truth[order], starts, axis=1)
    misses = np.add.reduceat(sorted_weights * (1.0 - truth[order]), starts, axis=1)
    return hits, misses


def _area(truth: Floats, scores: Floats, weights: Floats) -> Floats:
    hits, misses = _by_score(truth, scores, weights)
    above = np.cumsum(hits, axis=1) - hits / 2
    pairs = hits.sum(axis=1) * misses.sum(axis=1)
    return _divided((above * misses).sum(axis=1), pairs)


def _precision(truth: Floats, scores: Floats, weights: Floats) -> Floats:
    hits, misses = _by_score(truth, scores, weights)
    found, called = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return _divided((hits * precision).sum(axis=1), hits.sum(axis=1))


def _divided(upper: Floats, lower: Floats) -> Floats:
    return np.divide(upper, lower, out=np.full_like(upper, np.nan), where=lower > 0)


def _one_against_rest(
    single: Callable[[Floats, Floats, Floats], Floats], scored: Scored, weights: Floats
) -> Floats:
    """The mean over the classes that the rows have; of two classes the positive one alone."""
    classes = scored.probabilities.shape[1]
    present = [1] if classes == 2 else np.unique(scored.labels).tolist()
    size = max(1, _CHUNK // max(1, len(scored.labels)))
    parts = []
    for begin in range(0, len(weights), size):
        part = weights[begin : begin + size]
        each = [
            single((scored.labels == label).astype(np.float64), scored.probabilities[:, label], part)
            for label in present
        ]
        parts.append(np.mean(each, axis=0))
    return np.concatenate(parts)


def roc_auc(scored: Scored, weights: Floats) -> Floats:
    """Area under the ROC curve, ties counted half; the mean of one class against the rest.

    >>> scored = Scored.of(np.array([0, 1, 1]), np.array([0.1, 0.1, 0.9]))
    >>> roc_auc(scored, np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])).tolist()
    [0.75, nan]
    """
    return _one_against_rest(_area, scored, weights)


def average_precision(scored: Scored, weights: Floats) -> Floats:
    """Precision at each step of recall, weighted by the step; the mean of one class against the rest.

    >>> scored = Scored.of(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.1]))
    >>> average_precision(scored, np.ones((1, 3))).round(4).tolist()
    [0.8333]
    """
    return _one_against_rest(_precision, scored, weights)


MEASURES: dict[str, Measure] = {
    "log_loss": log_loss,
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "accuracy": accuracy,
}


def value(metric: str, scored: Scored) -> float:
    """The plain figure, every row counted once; NaN where it is undefined."""
    return float(MEASURES[metric](scored, np.ones((1, len(scored.labels))))[0])


def block_weights(rows: int, draws: int, seed: int) -> Floats:
    """float64[draws, rows]: how often each row is drawn by a circular block bootstrap (Politis and Romano 1992).

    Blocks of the cube root of `rows` keep neighbours together: rows of one hour are not independent.
    """
    random = np.random.default_rng(seed)
    length = max(1, round(rows ** (1 / 3)))
    blocks = -(-rows // length)
    starts = random.integers(0, rows, (draws, blocks))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(draws, -1)[:, :rows] % rows
    flat = drawn + np.arange(draws)[:, None] * rows
    return np.bincount(flat.ravel(), minlength=draws * rows).reshape(draws, rows).astype(np.float64)
