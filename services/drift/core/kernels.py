"""The detectors of an error stream as compiled folds: state in flat arrays, one call a batch, stop at an alarm.

Each function folds `errors` (0 or 1, in sequence order) from `start` on and returns the index of the row that
raised an alarm, or -1 at the end. The statistic stays in the state, so that a calibration can read its maximum.
"""

import math

import numpy as np
import numpy.typing as npt

from shared.kernels import kernel

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

RING = 2048
"""Own rows of a scanned stream that a change can be traced back over."""
LEAST_BEFORE = 100
"""Rows before a supposed change: fewer say too little about the error rate that was usual."""
LEAST_ERRORS = 8
"""Errors after a supposed change: a short burst is one bad batch, not another world."""

PH_MEAN, PH_N, PH_SUM, PH_MIN, PH_STATISTIC, PH_AT, PH_SIZE = range(7)
DDM_MEAN, DDM_N, DDM_P, DDM_S, DDM_STATISTIC, DDM_AT, DDM_SIZE = range(7)
HD_MEAN, HD_N, HD_LEAST, HD_LEAST_N, HD_STATISTIC, HD_SIZE = range(6)

WINDOWS: Ints = np.unique((3 * 1.25 ** np.arange(30)).astype(np.int64))
"""Lengths of the stretch after a supposed change, 3 to 1,938 rows."""


@kernel
def log_likelihood(errors: float, rows: float) -> float:
    """Of `errors` in `rows` Bernoulli trials at their own rate, in nats."""
    if errors <= 0.0 or errors >= rows:
        return 0.0
    rate = errors / rows
    return errors * math.log(rate) + (rows - errors) * math.log(1.0 - rate)


@kernel
def ratio(ring: Ints, rows: int, m: int) -> float:
    """The generalised likelihood ratio, in nats, that the newest `m` rows err more than all before; 0 if less."""
    size = ring.shape[0]
    total, earlier, before = ring[rows % size], ring[(rows - m) % size], rows - m
    after = total - earlier
    if after * before <= earlier * m:
        return 0.0
    parts = log_likelihood(after, m) + log_likelihood(earlier, before)
    return parts - log_likelihood(total, rows)


@kernel
def worst_window(ring: Ints, rows: int, windows: Ints) -> float:
    """The largest `ratio` over these lengths of what comes after a change."""
    size, best = ring.shape[0], 0.0
    for m in windows:
        if rows - m < LEAST_BEFORE or m >= size:
            break
        if ring[rows % size] - ring[(rows - m) % size] >= LEAST_ERRORS:
            best = max(best, ratio(ring, rows, m))
    return best


@kernel
def rows_since(ring: Ints, rows: int) -> int:
    """How many rows ago the change most likely began: the length of the largest ratio; 0 if errors never rose."""
    best, length = 0.0, 0
    for m in range(1, min(rows, ring.shape[0])):
        found = ratio(ring, rows, m)
        if found > best:
            best, length = found, m
    return length


@kernel
def scan(
    errors: Bits,
    members: Ints,
    sequences: Ints,
    start: int,
    counts: Ints,
    rings: Ints,
    marks: Ints,
    windows: Ints,
    thresholds: Floats,
    statistics: Floats,
) -> tuple[int, int]:
    """Change-point scan of several error streams, each a part of the rows: (row, stream) or (-1, -1).

    `members` int64[n, k]: the streams that a row belongs to, -1 for none. Per stream: `counts` rows so far,
    `rings` [RING] errors among its first i rows at i modulo RING, `marks` the sequences of those rows. A stream
    is looked at when it errs, as only then its ratio can grow. `statistics` takes the largest ratios of this call.
    """
    size = rings.shape[1]
    for row in range(start, errors.shape[0]):
        for k in range(members.shape[1]):
            stream = members[row, k]
            if stream < 0:
                continue
            count = counts[stream]
            marks[stream, count % size] = sequences[row]
            rings[stream, (count + 1) % size] = rings[stream, count % size] + errors[row]
            counts[stream] = count + 1
        if errors[row] == 0:
            continue
        worst, alarm = 1.0, -1
        for k in range(members.shape[1]):
            stream = members[row, k]
            if stream < 0:
                continue
            found = worst_window(rings[stream], counts[stream], windows)
            statistics[stream] = max(statistics[stream], found)
            if found / thresholds[stream] > worst:
                worst, alarm = found / thresholds[stream], stream
        if alarm >= 0:
            return row, alarm
    return -1, -1


@kernel
def page_hinkley(
    errors: Bits, start: int, state: Floats, delta: float, forget: float, threshold: float
) -> int:
    """Page's one-sided test against the running mean (Page 1954), from 30 rows on; as river's, mode "up"."""
    for row in range(start, errors.shape[0]):
        state[PH_N] += 1.0
        state[PH_MEAN] += (errors[row] - state[PH_MEAN]) / state[PH_N]
        state[PH_SUM] = forget * state[PH_SUM] + (errors[row] - state[PH_MEAN]) - delta
        if state[PH_SUM] < state[PH_MIN] or state[PH_N] == 1.0:
            state[PH_MIN], state[PH_AT] = state[PH_SUM], state[PH_N]
        state[PH_STATISTIC] = state[PH_SUM] - state[PH_MIN]
        if state[PH_N] >= 30.0 and state[PH_STATISTIC] > threshold:
            return row
    return -1


@kernel
def ddm(errors: Bits, start: int, state: Floats, threshold: float) -> int:
    """Drift Detection Method (Gama 2004): error rate against its least so far, in its deviations; as river's.

    The statistic is (p + s - p_min) / s_min, 0 while s_min is 0: a stream without an error has no scale.
    """
    for row in range(start, errors.shape[0]):
        state[DDM_N] += 1.0
        state[DDM_MEAN] += (errors[row] - state[DDM_MEAN]) / state[DDM_N]
        p = state[DDM_MEAN]
        s = math.sqrt(max(p * (1.0 - p), 0.0) / state[DDM_N])
        state[DDM_STATISTIC] = 0.0
        if state[DDM_N] <= 30.0:
            continue
        if p + s <= state[DDM_P] + state[DDM_S] or state[DDM_AT] == 0.0:
            state[DDM_P], state[DDM_S], state[DDM_AT] = p, s, state[DDM_N]
        if state[DDM_S] > 0.0:
            state[DDM_STATISTIC] = (p + s - state[DDM_P]) / state[DDM_S]
            if state[DDM_STATISTIC] > threshold:
                return row
    return -1


@kernel
def hddm_a(errors: Bits, start: int, state: Floats, confidence: float, threshold: float) -> int:
    """Hoeffding test of the mean against its least upper bound so far (Frias-Blanco 2015), one-sided; as river's.

    The statistic is ln(2 / confidence of the test); `confidence` places the cut, as in river, where both are one.
    """
    bound = math.log(1.0 / confidence) / 2.0
    for row in range(start, errors.shape[0]):
        state[HD_N] += 1.0
        state[HD_MEAN] += (errors[row] - state[HD_MEAN]) / state[HD_N]
        if state[HD_LEAST_N] == 0.0 or state[HD_LEAST] + math.sqrt(bound / state[HD_LEAST_N]) >= (
            state[HD_MEAN] + math.sqrt(bound / state[HD_N])
        ):
            state[HD_LEAST], state[HD_LEAST_N] = state[HD_MEAN], state[HD_N]
        state[HD_STATISTIC] = 0.0
        later = state[HD_N] - state[HD_LEAST_N]
        gap = state[HD_MEAN] - state[HD_LEAST]
        if later > 0.0 and gap > 0.0:
            state[HD_STATISTIC] = 2.0 * gap * gap * state[HD_LEAST_N] * state[HD_N] / later
            if state[HD_STATISTIC] > threshold:
                return row
    return -1
