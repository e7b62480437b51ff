"""How well scores rank and fit outcomes, on numpy alone."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
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


def multi_log_loss(classes: Ints, probabilities: Floats) -> float:
    """Mean negative log likelihood of class numbers int64[n] under float64[n, classes], clipped to 1e-15."""
    picked = probabilities[np.arange(len(classes)), classes]
    return float(-np.mean(np.log(np.clip(picked, 1e-15, 1.0))))


def losses(classes: Ints, outputs: Floats) -> Floats:
    """Negative log likelihood of each row: outputs are P(class 1) float64[n], or float64[n, classes].

    >>> losses(np.array([1, 0]), np.array([0.5, 0.5])).round(3).tolist()
    [0.693, 0.693]
    """
    if outputs.ndim == 1:
        picked = np.where(classes == 1, outputs, 1.0 - outputs)
    else:
        picked = outputs[np.arange(len(classes)), classes]
    return np.asarray(-np.log(np.clip(picked, 1e-15, 1.0)))


def accuracy(classes: Ints, outputs: Floats) -> float:
    """Share of rows whose most likely class is right; of two, class 1 from 0.5 on."""
    said = (outputs >= 0.5).astype(np.int64) if outputs.ndim == 1 else outputs.argmax(axis=1)
    return float(np.mean(said == classes))


def figures(classes: Ints, outputs: Floats) -> dict[str, float]:
    """Log loss and accuracy always; of two classes the ranking figures too, where both are there."""
    if outputs.ndim == 2:
        return {"log_loss": multi_log_loss(classes, outputs), "accuracy": accuracy(classes, outputs)}
    labels = classes == 1
    found = {
        "log_loss": log_loss(labels, outputs),
        "accuracy": accuracy(classes, outputs),
        "positive_share": float(labels.mean()),
    }
    if labels.any() and not labels.all():
        found |= {
            "roc_auc": roc_auc(labels, outputs),
            "average_precision": average_precision(labels, outputs),
        }
    return found
