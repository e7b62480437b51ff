"""How well scores rank and fit outcomes, on numpy alone."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def _thresholds(labels: Mask, scores: Floats) -> tuple[Floats, Floats]:
    """True and false positives at each distinct score, highest first."""
    order = np.argsort(-scores, kind="stable")
    ranked, truth = scores[order], labels[order].astype(np.float64)
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(truth)[ends]
    return hits, ends + 1 - hits


def roc_auc(labels: Mask, scores: Floats) -> float:
    """Area under the ROC curve, ties counted half; ValueError unless both classes are there.

    >>> roc_auc(np.array([False, True, True]), np.array([0.1, 0.1, 0.9]))
    0.75
    """
    hits, misses = _thresholds(labels, scores)
    if hits[-1] == 0 or misses[-1] == 0:
        raise ValueError("the area under the ROC curve needs both classes")
    area = np.trapezoid(np.append(0.0, hits), np.append(0.0, misses))
    return float(area / (hits[-1] * misses[-1]))


def average_precision(labels: Mask, scores: Floats) -> float:
    """Precision at each step of recall, weighted by the step; ValueError without a positive.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.5, 0.1]))
    0.8333333333333333
    """
    hits, misses = _thresholds(labels, scores)
    if hits[-1] == 0:
        raise ValueError("average precision needs a positive")
    steps = np.diff(np.append(0.0, hits)) / hits[-1]
    return float(np.sum(steps * hits / (hits + misses)))


def log_loss(labels: Mask, scores: Floats) -> float:
    """Mean negative log likelihood, scores clipped to 1e-15 from 0 and 1."""
    clipped = np.clip(scores, 1e-15, 1 - 1e-15)
    return float(-np.mean(np.log(np.where(labels, clipped, 1 - clipped))))
