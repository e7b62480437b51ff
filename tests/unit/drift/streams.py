"""Labelled rows made from few numbers."""

import numpy as np

from services.drift.core.records import LabeledRows, ProfileRow
from services.drift.rows import profile_row
from shared.codec.batch import Floats
from shared.profiling import Profiler

FEATURES = ["a", "b", "c"]


def rows(
    rate: float, count: int, start: int = 0, version: int = 1, seed: int = 0, shift: float = 0.0
) -> LabeledRows:
    """Binary outcomes, wrong with probability `rate`; three normal features moved by `shift`."""
    random = np.random.default_rng([seed, start])
    label = random.integers(0, 2, count)
    wrong = random.random(count) < rate
    predicted = np.where(wrong, 1 - label, label)
    confidence = 0.5 + random.random(count) / 2
    sequence = np.arange(start, start + count)
    return LabeledRows(
        sequence,
        sequence * 1_000,
        label,
        predicted,
        np.where(predicted == 1, confidence, 1 - confidence),
        random.normal(size=(count, 3)) + shift,
        np.full(count, version),
    )


def joined(*parts: LabeledRows) -> LabeledRows:
    """One after the other; none of them with optional columns."""
    names = ("sequence", "order_time", "label_class", "predicted_class", "score", "features", "model_version")
    return LabeledRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def profiles(matrix: Floats, every: int = 1_000, unit: int = 0) -> list[ProfileRow]:
    """What the features service would say of these vectors."""
    names = [f"f{i}" for i in range(matrix.shape[1])]
    profiler = Profiler(unit, names, np.full(len(names), np.nan), every)
    return [profile_row(record) for record in profiler.step(matrix, np.arange(len(matrix)))]
