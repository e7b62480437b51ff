"""Rows whose outcome follows the features, for two classes or more."""

import numpy as np

from services.retrainer.core.kinds.rows import TrainingRows
from tests.unit.models.makers import FEATURES


def rows(count: int = 600, classes: int = 2, seed: int = 0) -> TrainingRows:
    """Three features in units of their own; the class follows the first and the square of the second."""
    random = np.random.default_rng(seed)
    matrix = random.normal([5_000.0, 0.0, 7.0], [900.0, 1.0, 1e-3], size=(count, 3))
    signal = (matrix[:, 0] - 5_000) / 900 + matrix[:, 1] ** 2 - 1 + random.normal(0, 0.3, count)
    edges = np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1])
    index = np.arange(count, dtype=np.int64)
    return TrainingRows(
        features=FEATURES,
        matrix=matrix,
        classes=np.searchsorted(edges, signal).astype(np.int64),
        class_count=classes,
        weights=None,
        event_times=index * 1_000,
        sequences=index * 2 + 10,
        manifest={"topic": "fraud.labeled.v1"},
    )
