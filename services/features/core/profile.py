"""Profiles of the vectors that a unit gives: how each feature is distributed over every so many of them.

A value's bucket is the upper part of its double: exponent and two bits of mantissa, negative for a negative
value. So there are four buckets an octave, everywhere, without a range to be set, and profiles of the same
features add up. A zero, and what is as small as the smallest subnormal numbers, has no bucket.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.features.core.fold import FeatureFold
from shared.codec.arrays import digest_of
from shared.codec.batch import Batch, Floats, Ints
from shared.contracts.pipeline import Pipeline
from shared.contracts.tables import WindowFeature
from shared.kernels import kernel

Codes = npt.NDArray[np.int16]
MISSING = np.int16(-32768)
"""The code of a value that is not there; a bucket lies within +-8191."""
_LOW_BITS = 50
_PREFIX = "profile|"


@kernel
def code_rows(matrix: Floats, missing: Floats, codes: Codes, least: Floats, most: Floats) -> None:
    """Write each value's code (a bucket, 0 or MISSING) and widen the columns' range [least, most].

    `matrix` is float64 [rows, features]; a value equal to its feature's `missing` is missing, NaN is always.
    """
    bits = matrix.view(np.int64)
    for row in range(matrix.shape[0]):
        for column in range(matrix.shape[1]):
            value = matrix[row, column]
            if not np.isfinite(value) or value == missing[column]:
                codes[row, column] = MISSING
                continue
            size = (bits[row, column] & np.int64(0x7FFFFFFFFFFFFFFF)) >> _LOW_BITS
            codes[row, column] = np.int16(-size if value < 0.0 else size)
            least[column] = min(least[column], value)
            most[column] = max(most[column], value)


@kernel
def count_codes(codes: Codes, scratch: Ints, places: Ints, counts: Ints) -> int:
    """Count one column's codes: how many different buckets, ascending in `places` with their `counts`.

    `scratch` int64[16384] is all zero before and after.
    """
    least, most = 8192, -8192
    for row in range(codes.shape[0]):
        code = int(codes[row])
        if code != MISSING:
            scratch[code + 8192] += 1
            least, most = min(least, code), max(most, code)
    found = 0
    for place in range(least, most + 1):
        if scratch[place + 8192] > 0:
            places[found], counts[found] = place, scratch[place + 8192]
            scratch[place + 8192] = 0
            found += 1
    return found


class Profiler:
    """Gathers vectors and makes a profile of every `every` of them; exact over restarts.

    `missing` holds for each feature the value that stands for "not there", NaN where there is none.
    """

    def __init__(self, unit: int, names: Sequence[str], missing: Floats, every: int) -> None:
        self._unit, self._names, self._missing, self._every = unit, list(names), missing, every
        self._codes: Codes = np.empty((every, len(names)), np.int16)
        self._scratch, self._places, self._counts = np.zeros((3, 16_384), np.int64)
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self._rows, self._first, self._last = 0, 0, 0
        self._least = np.full(len(self._names), np.inf)
        self._most = np.full(len(self._names), -np.inf)

    def step(self, matrix: Floats, order_times: Ints) -> list[dict[str, Any]]:
        """Take vectors, float64 [rows, features], in the order of the log; the profiles that they fill.

        A profile is a record of `schemas/platform/profile.avsc`; times are milliseconds.
        """
        full: list[dict[str, Any]] = []
        at = 0
        while at < len(matrix):
            end = min(len(matrix), at + self._every - self._rows)
            room = self._codes[self._rows : self._rows + end - at]
            code_rows(matrix[at:end], self._missing, room, self._least, self._most)
            if self._rows == 0:
                self._first = int(order_times[at])
            self._rows, self._last = self._rows + end - at, int(order_times[end - 1])
            at = end
            if self._rows == self._every:
                full.append(self._profile())
                self._number += 1
                self._begin()
        return full

    def _profile(self) -> dict[str, Any]:
        return {
            "unit": self._unit,
            "number": self._number,
            "rows": self._rows,
            "first_order_time": self._first,
            "order_time": self._last,
            "names": self._names,
            "columns": [self._column(at) for at in range(len(self._names))],
        }

    def _column(self, at: int) -> dict[str, Any]:
        found = count_codes(self._codes[: self._rows, at], self._scratch, self._places, self._counts)
        places, counts = self._places[:found].tolist(), self._counts[:found].tolist()
        missing = self._rows - sum(counts)
        zeros = counts.pop(places.index(0)) if 0 in places else 0
        return {
            "buckets": [place for place in places if place],
            "counts": counts,
            "zeros": zeros,
            "missing": missing,
            "minimum": float(self._least[at]) if found else 0.0,
            "maximum": float(self._most[at]) if found else 0.0,
        }

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The profile under way as plain arrays."""
        return {
            "codes": self._codes[: self._rows].copy(),
            "least": self._least.copy(),
            "most": self._most.copy(),
            "place": np.array([self._number, self._first, self._last], np.int64),
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `snapshot` gave; a profile longer than those now declared is dropped, its number stays."""
        codes = arrays["codes"]
        number, first, last = (int(each) for each in arrays["place"])
        self._begin()
        self._number = number
        if codes.shape[1] != len(self._names) or len(codes) >= self._every:
            return
        self._rows, self._first, self._last = len(codes), first, last
        self._codes[: self._rows] = codes
        self._least, self._most = arrays["least"].copy(), arrays["most"].copy()


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
