"""Aggregates that are only ever joined, never subtracted from: what leaves a window leaves no residue.

An aggregate is three floats (a, b, c), of which an operation uses the first WIDTH[op]. NaN is a null and
counts nowhere. Sums are double-double: a + b with an error below 2**-104 of the absolute sum for each addition
(Dekker, "A floating-point technique for extending the available precision", 1971). Variances join as in Chan,
Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979: count, mean
and sum of squared deviations; equal values give exactly 0.
"""

import math

import numpy as np

from shared.codec.batch import Floats
from shared.kernels import kernel

SUM, MIN, MAX, LAST, VAR = range(5)
WIDTH = (2, 1, 1, 1, 3)

Triple = tuple[float, float, float]

# Powers of two that keep sums of 2**64 doubles, and squares of doubles, finite.
_SUM_SCALE = 2.0**-64
_VAR_SCALE = 2.0**-540
LARGEST = float(np.finfo(np.float64).max)


@kernel
def identity(op: int) -> Triple:
    """The aggregate of nothing."""
    if op in (SUM, VAR):
        return 0.0, 0.0, 0.0
    return math.nan, 0.0, 0.0


@kernel
def _plus(a: float, b: float, x: float) -> Triple:
    total = a + x
    part = total - a
    low = b + ((a - (total - part)) + (x - part))
    high = total + low
    return high, low - (high - total), 0.0


@kernel
def joined(op: int, a: float, b: float, c: float, x: float, newest: bool) -> Triple:
    """The aggregate (a, b, c) with the value `x`, which is `newest` of all or else the oldest."""
    if math.isnan(x):
        return a, b, c
    if op == SUM:
        return _plus(a, b, x)
    if op == MIN:
        return (a if a <= x else x), b, c
    if op == MAX:
        return (a if a >= x else x), b, c
    if op == LAST:
        return (x if newest or math.isnan(a) else a), b, c
    count = a + 1.0
    delta = x - b
    mean = b + delta / count
    return count, mean, c + delta * (x - mean)


@kernel
def merged(op: int, older: Triple, newer: Triple) -> Triple:
    """The aggregate of both."""
    if op == SUM:
        high, low, _ = _plus(older[0], older[1], newer[0])
        low += newer[1]
        total = high + low
        return total, low - (total - high), 0.0
    if op == VAR:
        if older[0] == 0.0:
            return newer
        if newer[0] == 0.0:
            return older
        count = older[0] + newer[0]
        delta = newer[1] - older[1]
        share = newer[0] / count
        return count, older[1] + delta * share, older[2] + newer[2] + delta * delta * older[0] * share
    if math.isnan(newer[0]):
        return older
    if math.isnan(older[0]) or op == LAST:
        return newer
    if op == MIN:
        return older if older[0] <= newer[0] else newer
    return older if older[0] >= newer[0] else newer


@kernel
def load(rows: Floats, at: int, column: int, op: int) -> Triple:
    """The aggregate kept in a row."""
    b = rows[at, column + 1] if op in (SUM, VAR) else 0.0
    c = rows[at, column + 2] if op == VAR else 0.0
    return rows[at, column], b, c


@kernel
def store(rows: Floats, at: int, column: int, op: int, a: float, b: float, c: float) -> None:
    """Keep an aggregate in a row."""
    rows[at, column] = a
    if op in (SUM, VAR):
        rows[at, column + 1] = b
    if op == VAR:
        rows[at, column + 2] = c


@kernel
def scanned(rows: Floats, begin: int, end: int, value: int, op: int, scale: float) -> Triple:
    """The aggregate of rows begin..end-1 from their values, each times `scale`."""
    a, b, c = identity(op)
    for at in range(begin, end):
        a, b, c = joined(op, a, b, c, rows[at, value] * scale, True)
    return a, b, c


@kernel
def scaled_total(rows: Floats, begin: int, end: int, value: int, parts: float) -> float:
    """Sum / parts where the plain sum ran out of range; the largest double where the result does too."""
    a, b, _ = scanned(rows, begin, end, value, SUM, _SUM_SCALE)
    result = ((a + b) / parts) / _SUM_SCALE
    return min(max(result, -LARGEST), LARGEST)


@kernel
def scaled_deviation(rows: Floats, begin: int, end: int, value: int) -> float:
    """Standard deviation where the plain squares ran out of range."""
    count, _, squares = scanned(rows, begin, end, value, VAR, _VAR_SCALE)
    return min(math.sqrt(squares / count) / _VAR_SCALE, LARGEST)
