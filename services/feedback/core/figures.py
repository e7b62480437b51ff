"""Figures over one window of outcomes: exact, and the same whatever order the rows stand in, up to rounding.

Accuracy and F1 come from river's confusion matrix; log loss is river's, over all rows at once; for the others
river has none that is exact on a window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from river import metrics

from shared.codec.batch import Floats, Ints, Mask
from shared.contracts.policies import Cost

LEAST_CHANCE = 1e-15
"""No probability counts as smaller, as in river: one wrong row that was sure does not make all of it infinite."""
BINS = 10
"""Of the calibration error, equally wide."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Outcomes beside answers: class and predicted class int64[n], score float64[n], chances float64[n, classes].

    `chances` has no columns where there are two classes: the score is then the chance of the positive one.
    """

    outcome: Ints
    predicted: Ints
    score: Floats
    chances: Floats

    def take(self, index: npt.NDArray[np.generic]) -> "Judged":
        """Some of the rows."""
        return Judged(self.outcome[index], self.predicted[index], self.score[index], self.chances[index])


@dataclass(frozen=True, slots=True)
class Task:
    """How many classes there are, which of two is the positive one, and what mistakes cost."""

    classes: int
    positive: int
    cost: Cost | None = None
    top_k: int | None = None

    @property
    def binary(self) -> bool:
        """Whether one score says all."""
        return self.classes == 2


def log_losses(task: Task, rows: Judged) -> Floats:
    """Minus the logarithm of the chance that was given to what happened, a row.

    >>> rows = Judged(np.array([1, 0]), np.array([1, 1]), np.array([0.5, 0.75]), np.empty((2, 0)))
    >>> log_losses(Task(2, 1), rows).round(6).tolist()
    [0.693147, 1.386294]
    """
    if task.binary:
        chance = np.where(rows.outcome == task.positive, rows.score, 1.0 - rows.score)
    else:
        chance = rows.chances[np.arange(rows.outcome.size), rows.outcome]
    made: Floats = -np.log(np.clip(chance, LEAST_CHANCE, 1.0 - LEAST_CHANCE))
    return made


def confusion(task: Task, rows: Judged) -> Ints:
    """How often each class (first axis) was answered by each (second axis): int64[classes, classes]."""
    size = task.classes
    found = np.bincount(rows.outcome * size + rows.predicted, minlength=size * size)
    return found.reshape(size, size).astype(np.int64)


def of_confusion(task: Task, found: Ints) -> dict[str, float]:
    """Accuracy, F1 (the mean over the classes where there are more than two) and cost."""
    # river has no types.
    river: Any = metrics
    matrix = river.ConfusionMatrix()
    for outcome, predicted in np.argwhere(found).tolist():
        matrix.update(outcome, predicted, int(found[outcome, predicted]))
    f1 = river.F1(cm=matrix, pos_val=task.positive) if task.binary else river.MacroF1(cm=matrix)
    made = {"accuracy": float(river.Accuracy(cm=matrix).get()), "f1": float(f1.get())}
    if task.cost is not None and task.binary:
        p = task.positive
        wrong = found[1 - p, p] * task.cost.false_positive + found[p, 1 - p] * task.cost.false_negative
        made["cost"] = float(wrong) / int(found.sum())
    return made


def roc_auc(positive: Mask, score: Floats) -> float:
    """The chance that a positive row scores above a negative one, ties by half; NaN with one class only.

    >>> roc_auc(np.array([True, False, True]), np.array([0.9, 0.4, 0.4]))
    0.75
    """
    count = int(np.count_nonzero(positive))
    others = positive.size - count
    if not count or not others:
        return float("nan")
    _, tied, sizes = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks = (2 * ends - sizes + 1)[tied] / 2.0
    return (float(ranks[positive].sum()) - count * (count + 1) / 2.0) / (count * others)


def average_precision(positive: Mask, score: Floats) -> float:
    """Precision at each threshold, weighted by the recall that it adds; NaN without a positive row.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.6, 0.4])).__round__(6)
    0.833333
    """
    count = int(np.count_nonzero(positive))
    if not count:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), score.size - 1)
    hits = np.cumsum(positive[order])[ends]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (ends + 1)).sum()) / count


def calibration(right: Mask, chance: Floats) -> float:
    """Expected calibration error over ten bins of the chance."""
    bins = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    said = np.bincount(bins, chance, BINS)
    came = np.bincount(bins, right.astype(np.float64), BINS)
    return float(np.abs(said - came).sum()) / right.size


def precision_at_k(positive: Mask, score: Floats, k: int) -> float:
    """The share of positive rows among the `k` highest scores; equal scores in the order of the rows."""
    best = np.argsort(-score, kind="stable")[:k]
    return float(np.count_nonzero(positive[best])) / best.size


def figures(task: Task, rows: Judged, of_day: bool = False) -> Mapping[str, float]:
    """Every figure that the rows allow, by its name; at least one row."""
    made = {"log_loss": float(log_losses(task, rows).mean()), **of_confusion(task, confusion(task, rows))}
    if task.binary:
        positive = rows.outcome == task.positive
        made["roc_auc"] = roc_auc(positive, rows.score)
        made["average_precision"] = average_precision(positive, rows.score)
        made["calibration"] = calibration(positive, rows.score)
        if of_day and task.top_k is not None:
            made["precision_at_k"] = precision_at_k(positive, rows.score, task.top_k)
    else:
        made["calibration"] = calibration(rows.outcome == rows.predicted, rows.score)
    return {name: value for name, value in made.items() if not np.isnan(value)}
