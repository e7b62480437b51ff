"""Class weights: every class counts for as much as another, however rare it is."""

import numpy as np

from services.retrainer.core.kinds.rows import Floats, Ints, Plan, TrainingRows


def balance_of(classes: Ints, count: int) -> Floats:
    """Weights by class float64[count]: of two, the positive one counts for as much as the negative one.

    >>> balance_of(np.array([0, 0, 0, 1]), 2).tolist()
    [1.0, 3.0]
    """
    seen = np.bincount(classes, minlength=count).astype(np.float64)
    if count == 2:
        return np.array([1.0, seen[0] / seen[1] if seen[1] else 1.0])
    return np.where(seen > 0, seen.sum() / (np.count_nonzero(seen) * np.maximum(seen, 1.0)), 1.0)


def weights_of(rows: TrainingRows, plan: Plan) -> Floats | None:
    """The rows' own weights, balanced if the plan asks for it: float64[n], None where all count alike."""
    if not plan.balance:
        return rows.weights
    by_row: Floats = balance_of(rows.targets, rows.class_count)[rows.targets]
    return by_row if rows.weights is None else rows.weights * by_row
