"""Thresholds from a budget: how often each detector cries wolf on stationary errors, by simulation, as a table.

A detector is run from its start over `RUN` independent errors of one rate, many thousand times; the largest
statistics of the runs have an exponential tail, `threshold = offset + slope * ln(rows between false alarms)`.
`tabled` keeps offset and slope by error rate; `python -m tests.bench.make_drift_table` writes it anew.
"""

import math

import numpy as np
import numpy.typing as npt

from services.drift.core import kernels
from services.drift.core.kernels import Floats
from services.drift.core.sampled import BLOCK, KS_RECENT, KS_WINDOW, rise
from services.drift.core.tabled import RATES, TABLE
from shared.kernels import kernel

RUN = 4_000
"""Rows of a run: a detector starts anew with each model, about this often; older ones alarm less often a row."""
PH_FORGET = 1.0
"""Forgetting (river: alpha below 1) pulls the sum back to zero, against the drift that keeps it calm."""
HD_CONFIDENCE = 1e-3
SAFETY = 5.0
"""The budget allows one false alarm; aiming at a fifth of one leaves two or more a chance of 2 % (Poisson)."""


_AT: Floats = np.log(RATES) - np.log1p(-np.array(RATES))
_LINES: dict[str, Floats] = {name: np.array(lines).T for name, lines in TABLE.items()}


def page_delta(rate: float) -> float:
    """The drift that Page-Hinkley forgives: half the smallest shift worth an alarm, a fifth of a deviation.

    >>> round(page_delta(0.1), 3)
    0.03
    """
    rate = min(max(rate, 1e-3), 0.999)
    return 0.1 * math.sqrt(rate * (1.0 - rate))


def threshold(detector: str, rate: float, rows: float) -> float:
    """What a statistic of `detector` passes once in `rows` independent errors of this rate, or more rarely.

    >>> threshold("scan", 0.1, 1e6) < threshold("scan", 0.1, 1e7)
    True
    """
    offsets, slopes = _LINES[detector]
    rate = min(max(rate, RATES[0]), RATES[-1])
    here = math.log(rate) - math.log1p(-rate)
    logs = math.log(max(rows, RUN))
    return float(np.interp(here, _AT, offsets + slopes * logs))


def fit(maxima: Floats, run: int = RUN) -> tuple[float, float]:
    """Offset and slope of the tail of the runs' largest statistics, from the tenth to the thousandth of them."""
    shares = np.geomspace(0.1, max(2e-3, 20 / len(maxima)), 12)
    heights = np.quantile(maxima, 1.0 - shares)
    slope, offset = np.polyfit(np.log(run / shares), heights, 1)
    return float(offset), float(slope)


@kernel
def _errors(rate: float, errors: npt.NDArray[np.uint8]) -> None:
    for i in range(errors.shape[0]):
        errors[i] = np.random.random() < rate


@kernel
def _seed(seed: int) -> None:
    np.random.seed(seed)


@kernel
def _scan_maxima(rate: float, runs: int, run: int, windows: npt.NDArray[np.int64]) -> Floats:
    maxima = np.zeros(runs)
    errors = np.zeros(run, np.uint8)
    members = np.zeros((run, 1), np.int64)
    sequences = np.zeros(run, np.int64)
    thresholds = np.full(1, np.inf)
    for i in range(runs):
        _errors(rate, errors)
        counts = np.zeros(1, np.int64)
        rings, marks = np.zeros((1, kernels.RING), np.int64), np.zeros((1, kernels.RING), np.int64)
        statistics = np.zeros(1)
        kernels.scan(errors, members, sequences, 0, counts, rings, marks, windows, thresholds, statistics)
        maxima[i] = statistics[0]
    return maxima


@kernel
def _fold_maxima(which: int, rate: float, delta: float, runs: int, run: int) -> Floats:
    maxima = np.zeros(runs)
    one = np.zeros(1, np.uint8)
    errors = np.zeros(run, np.uint8)
    for i in range(runs):
        _errors(rate, errors)
        state = np.zeros(8)
        for row in range(run):
            one[0] = errors[row]
            if which == 0:
                kernels.page_hinkley(one, 0, state, delta, PH_FORGET, np.inf)
                if row >= 128:
                    maxima[i] = max(maxima[i], state[kernels.PH_STATISTIC])
            elif which == 1:
                kernels.ddm(one, 0, state, np.inf)
                if row >= 128:
                    maxima[i] = max(maxima[i], state[kernels.DDM_STATISTIC])
            else:
                kernels.hddm_a(one, 0, state, HD_CONFIDENCE, np.inf)
                if row >= 128:
                    maxima[i] = max(maxima[i], state[kernels.HD_STATISTIC])
    return maxima


@kernel
def _ks_maxima(runs: int, run: int) -> Floats:
    maxima = np.zeros(runs)
    for i in range(runs):
        values = np.random.random(run)
        for end in range(KS_WINDOW, run + 1):
            maxima[i] = max(maxima[i], rise(values[end - KS_WINDOW : end], KS_RECENT))
    return maxima


def simulate(detector: str, rate: float, runs: int, seed: int = 0, run: int = RUN) -> Floats:
    """The largest statistic of each of `runs` runs of `run` independent errors of one rate, float64[runs]."""
    _seed(seed)
    if detector == "scan":
        return _scan_maxima(rate, runs, run, kernels.WINDOWS)
    if detector == "kswin":
        return _ks_maxima(runs, run // BLOCK)
    which = ("page_hinkley", "ddm", "hddm_a").index(detector)
    return _fold_maxima(which, rate, page_delta(rate), runs, run)
