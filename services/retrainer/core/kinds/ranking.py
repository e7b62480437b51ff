"""The order of candidates: by the metric, and where a few rows decide on it, by log loss.

Of ranking figures over rare positives two models differ by chance more often than by merit. Log loss, over the
same rows, tells them apart sooner: each row speaks, and not only the order among them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from services.retrainer.core.kinds.rows import Candidate, Floats, Ints

RESAMPLES = 200
# One candidate is better than another where it is so in this share of resamples of the judging rows.
CONFIDENCE = 0.9

Measure = Callable[[Floats], float]


def ranked(found: Sequence[Candidate], targets: Ints, metric: str, seed: int) -> list[Candidate]:
    """The best first; `targets` int64[n] are those of the judging rows, whose outputs the candidates hold.

    Whichever the best by `metric` is not surely better than stand before all others, by log loss.
    """
    if metric == "log_loss":
        return sorted(found, key=_log_loss)
    order = sorted(found, key=lambda each: -each.figures.get(metric, float("-inf")))
    if metric not in order[0].figures:
        return order
    tied = _tied(order, targets, metric, seed)
    level = [each for each, alike in zip(order, tied, strict=True) if alike]
    behind = [each for each, alike in zip(order, tied, strict=True) if not alike]
    return sorted(level, key=_log_loss) + behind


def _log_loss(candidate: Candidate) -> float:
    return candidate.figures.get("log_loss", float("inf"))


def _tied(order: Sequence[Candidate], targets: Ints, metric: str, seed: int) -> list[bool]:
    """Whether the first is not surely better; the same resamples are drawn for all."""
    random = np.random.default_rng(seed)
    measures = [measure(metric, targets, each.outputs) for each in order]
    drawn = np.empty((RESAMPLES, len(order)))
    for row in drawn:
        weights = np.bincount(random.integers(0, len(targets), len(targets)), minlength=len(targets))
        row[:] = [of(weights.astype(np.float64)) for of in measures]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if len(drawn) < RESAMPLES / 2:
        return [True] * len(order)
    better: Floats = (drawn[:, :1] > drawn).mean(axis=0)
    return [bool(share < CONFIDENCE) for share in better]


def measure(metric: str, targets: Ints, outputs: Floats) -> Measure:
    """The metric as a function of how often each row counts, float64[n]; NaN where that leaves it undefined.

    >>> score = measure("roc_auc", np.array([0, 1, 1]), np.array([0.1, 0.1, 0.9]))
    >>> score(np.array([1.0, 1.0, 1.0])), score(np.array([2.0, 0.0, 1.0]))
    (0.75, 1.0)
    """
    if metric == "accuracy":
        said = (outputs >= 0.5).astype(np.int64) if outputs.ndim == 1 else outputs.argmax(axis=1)
        right = (said == targets).astype(np.float64)
        return lambda weights: float(weights @ right / weights.sum())
    order = np.argsort(-outputs, kind="stable")
    truth = (targets[order] == 1).astype(np.float64)
    ends = np.append(np.flatnonzero(np.diff(outputs[order])), len(outputs) - 1)

    def of(weights: Floats) -> float:
        ours = weights[order]
        hits = np.cumsum(ours * truth)[ends]
        misses = np.cumsum(ours)[ends] - hits
        if hits[-1] == 0 or misses[-1] == 0:
            return float("nan")
        if metric == "roc_auc":
            area = np.trapezoid(np.append(0.0, hits), np.append(0.0, misses))
            return float(area / (hits[-1] * misses[-1]))
        steps = np.diff(np.append(0.0, hits)) / hits[-1]
        return float(np.sum(steps * hits / np.maximum(hits + misses, 1.0)))

    return of
