"""Profiles: how each column of what a unit gives is distributed over every so many rows.

A value's bucket is the upper part of its double: exponent and two bits of mantissa, negative for a negative
value. So there are four buckets an octave, everywhere, without a range to be set, and profiles of the same
columns add up. A zero, and what is as small as the smallest subnormal numbers, has no bucket.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Floats, Ints
from shared.kernels import kernel

Codes = npt.NDArray[np.int16]
MISSING = np.int16(-32768)
"""The code of a value that is not there; a bucket lies within +-8191."""
FEATURES, ANSWERS = "features", "answers"
"""What a profile is of: the vectors of a unit, or what one version answered there."""
SCORE, CONFIDENCE, PREDICTED = "score", "confidence", "predicted"
"""Columns of answers: log-odds of the score; the predicted class's probability; the class, a bucket each."""
_LOW_BITS = 50
_FIRST = 4092


def bucket(value: float) -> int:
    """The bucket of a value.

    >>> bucket(1.0), bucket(-1.0), bucket(0.0), bucket(1.3) - bucket(1.0)
    (4092, -4092, 0, 1)
    """
    size = int(np.float64(abs(value)).view(np.int64)) >> _LOW_BITS
    return -size if value < 0 else size


def edge(place: int) -> float:
    """The value of least magnitude in a bucket.

    >>> edge(bucket(1.3)), edge(bucket(-1.3)), edge(0)
    (1.25, -1.25, 0.0)
    """
    size = float(np.int64(abs(place) << _LOW_BITS).view(np.float64))
    return -size if place < 0 else size


def floor(place: int) -> float:
    """Where a bucket begins: of a negative one that is its value of greatest magnitude.

    >>> floor(bucket(1.3)), floor(bucket(-1.3)), floor(0)
    (1.25, -1.5, 0.0)
    """
    return edge(place) if place >= 0 else edge(place - 1)


def numbered(index: Ints) -> Floats:
    """Values with a bucket each for whole numbers from 0 on, however large: see `number_of`.

    >>> [number_of(bucket(value)) for value in numbered(np.array([0, 8, 9, 1000])).tolist()]
    [0, 8, 9, 1000]
    """
    return ((index + _FIRST) << _LOW_BITS).view(np.float64)


def number_of(place: int) -> int:
    """The number that `numbered` put into a bucket."""
    return place - _FIRST


@kernel
def code_rows(
    matrix: Floats, missing: Floats, codes: Codes, least: Floats, most: Floats, sums: Floats
) -> None:
    """Write each value's code (a bucket, 0 or MISSING) and widen the columns' range [least, most].

    `sums` float64[2, columns] takes the values and their squares, one after another.

    `matrix` is float64 [rows, columns]; a value equal to its column's `missing` is missing, NaN is always.
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
            sums[0, column] += value
            sums[1, column] += value * value


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
    """Gathers rows and makes a profile of every `every` of them; exact over restarts.

    `missing` holds for each column of `names` the value that stands for "not there", NaN where there is none.
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
        self._sums = np.zeros((2, len(self._names)))

    def step(self, matrix: Floats, order_times: Ints) -> list[dict[str, Any]]:
        """Take rows, float64 [rows, columns], in the order of the log; the profiles that they fill.

        A profile is a record of `schemas/platform/profile.avsc`; times are milliseconds.
        """
        full: list[dict[str, Any]] = []
        at = 0
        while at < len(matrix):
            end = min(len(matrix), at + self._every - self._rows)
            room = self._codes[self._rows : self._rows + end - at]
            code_rows(matrix[at:end], self._missing, room, self._least, self._most, self._sums)
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
            "total": float(self._sums[0, at]),
            "squares": float(self._sums[1, at]),
        }

    def drop(self) -> None:
        """Forget the rows of the profile under way; its number goes to the next one."""
        self._begin()

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The profile under way as plain arrays."""
        return {
            "codes": self._codes[: self._rows].copy(),
            "least": self._least.copy(),
            "most": self._most.copy(),
            "sums": self._sums.copy(),
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
        if "sums" in arrays:  # else a state from before they were kept
            self._sums = arrays["sums"].copy()
