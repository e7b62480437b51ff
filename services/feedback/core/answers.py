"""Profiles of what the champion answers: how its scores and classes are distributed, long before any outcome."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Batch, Floats, Ints
from shared.profiling import ANSWERS, CONFIDENCE, PREDICTED, SCORE, Profiler, numbered

NAMES = (SCORE, CONFIDENCE, PREDICTED)
FARTHEST = 36.0
"""Log-odds are clipped here; nearer to 1 a double cannot come."""


class AnswerProfiles:
    """Of partition `unit` of predictions.v1, `every` answers a profile, each of one version.

    Of two `classes` the score is the probability of the positive one, of more that of the predicted one.
    """

    def __init__(self, unit: int, classes: int, every: int) -> None:
        self._classes = classes
        self._profiler = Profiler(unit, NAMES, np.full(len(NAMES), np.nan), every)
        self._version = 0

    def step(self, rows: Batch) -> list[dict[str, Any]]:
        """Take rows of predictions.v1 in the order of the log; the records of profiles.v1 that they fill.

        Answers of canaries are passed over. Another version's first answer drops the profile under way.
        """
        champion = [role == b"champion" for role in rows["role"].strings.to_list()]
        rows = rows.take(np.flatnonzero(champion))
        versions = rows["model_version"].array
        cuts = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist(), rows.rows]
        full: list[dict[str, Any]] = []
        for start, end in itertools.pairwise(cuts):
            if start < end:
                full += self._of_version(int(versions[start]), rows.take(np.arange(start, end)))
        return full

    def _of_version(self, version: int, rows: Batch) -> list[dict[str, Any]]:
        if version != self._version:
            self._profiler.drop()
            self._version = version
        matrix = answer_columns(rows["score"].array, rows["predicted_class"].array, self._classes)
        found = self._profiler.step(matrix, rows["order_time"].array)
        return [{**each, "of": ANSWERS, "model_version": version} for each in found]

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The profile under way as plain arrays."""
        return {**self._profiler.snapshot(), "version": np.array([self._version], np.int64)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `snapshot` gave."""
        self._profiler.restore(arrays)
        self._version = int(arrays["version"][0])


def answer_columns(scores: Floats, predicted: Ints, classes: int) -> Floats:
    """What is profiled of each answer, float64 [rows, NAMES]."""
    confidence = np.maximum(scores, 1.0 - scores) if classes == 2 else scores
    return np.stack([log_odds(scores), confidence, numbered(predicted.astype(np.int64))], axis=1)


def log_odds(scores: Floats) -> Floats:
    """ln(p / (1 - p)), never infinite: buckets of it are as fine near 1 as near 0.

    >>> log_odds(np.array([0.0, 0.5, 1.0])).tolist()
    [-36.0, 0.0, 36.0]
    """
    with np.errstate(divide="ignore"):
        odds: Floats = np.log(scores) - np.log1p(-scores)
    return np.clip(odds, -FARTHEST, FARTHEST)
