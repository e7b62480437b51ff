"""Profiles of the vectors that the last stage gives, beside its fold."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from services.features.core.fold import FeatureFold
from shared.codec.arrays import digest_of
from shared.codec.batch import Batch
from shared.contracts.pipeline import Pipeline
from shared.contracts.tables import WindowFeature
from shared.profiling import Profiler

_PREFIX = "profile|"


class ProfiledFold:
    """The last stage's fold with a profile of its vectors beside it: one state, one digest.

    `full` holds the profiles that the last call of `step` filled; whoever writes its rows writes these too.
    """

    def __init__(self, pipeline: Pipeline, stage: int, unit: int) -> None:
        self._fold = FeatureFold(pipeline, stage, unit)
        self._columns = [f"features.{name}" for name in pipeline.feature_names]
        missing = np.array([_missing(feature) for feature in pipeline.features])
        every = pipeline.policy.drift.profile_rows
        self._profiler = Profiler(unit, pipeline.feature_names, missing, every)
        self.full: list[dict[str, Any]] = []

    def step(self, batch: Batch) -> Batch:
        """Fold the rows; the rows of features.v1."""
        rows = self._fold.step(batch)
        self.full = []
        if rows.rows:
            matrix = np.empty((rows.rows, len(self._columns)), np.float64)
            for at, name in enumerate(self._columns):
                matrix[:, at] = rows[name].array
            self.full = self._profiler.step(matrix, rows["order_time"].array)
        return rows

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The state as plain arrays, the profile under way among them."""
        own = {f"{_PREFIX}{name}": array for name, array in self._profiler.snapshot().items()}
        return {**self._fold.snapshot(), **own}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a state that `snapshot` gave, here or before the pipeline was profiled."""
        own = {n.removeprefix(_PREFIX): a for n, a in arrays.items() if n.startswith(_PREFIX)}
        self._fold.restore({n: a for n, a in arrays.items() if not n.startswith(_PREFIX)})
        if own:
            self._profiler.restore(own)

    def digest(self) -> str:
        """SHA-256 (hex) over what the state means."""
        profile = digest_of(self._profiler.snapshot())
        return hashlib.sha256(f"{self._fold.digest()} {profile}".encode()).hexdigest()


def _missing(feature: Any) -> float:
    """The declared code of a value that is not there; a 0 cannot be told from a value."""
    if isinstance(feature, WindowFeature) and feature.default != 0.0:
        return feature.default
    return float("nan")
