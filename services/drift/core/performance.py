"""The performance family: does the model that serves err more than it did? Six detectors, one budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from services.drift.core import kernels
from services.drift.core.calibration import HD_CONFIDENCE, PH_FORGET, page_delta, threshold
from services.drift.core.kernels import RING, WINDOWS, Bits, Floats, Ints
from services.drift.core.sampled import Adwin, Kswin

CHUNK = 128
"""Rows between two looks at the error rate that thresholds hang on, and before the first alarm."""
HANDOVER_ROWS = 4 * CHUNK
"""So many rows of the version before say what is usual, for as many rows of the next one."""
EDGE_ROWS = 3 * CHUNK
"""Rows that place the thirds of confidence."""
STATE = (
    "_n",
    "_wait",
    "_counts",
    "_rings",
    "_marks",
    "_edges",
    "_first",
    "_folds",
    "_limits",
    "_scan_limits",
    "_delta",
)
STATISTIC = {
    "page_hinkley": kernels.PH_STATISTIC,
    "ddm": kernels.DDM_STATISTIC,
    "hddm_a": kernels.HD_STATISTIC,
}
FOLDS = ("page_hinkley", "ddm", "hddm_a")
SHARES = {"scan": 0.75, "adwin": 0.05, "page_hinkley": 0.05, "ddm": 0.05, "hddm_a": 0.05, "kswin": 0.05}
"""Who may spend how much of the family's false alarms: the most to the one that finds the most."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows of one model version in order: errors uint8[n], losses and confidences float64[n], classes int64[n]."""

    errors: Bits
    losses: Floats
    confidence: Floats
    predicted: Ints
    sequence: Ints

    def __len__(self) -> int:
        return len(self.errors)

    def take(self, keep: slice) -> "Judged":
        """A stretch of them."""
        return Judged(
            self.errors[keep],
            self.losses[keep],
            self.confidence[keep],
            self.predicted[keep],
            self.sequence[keep],
        )


@dataclass(frozen=True, slots=True)
class Worse:
    """Row `row` of the call raised an alarm: errors rose from `before` to `after` (errors, rows)."""

    row: int
    detector: str
    since_sequence: int
    statistic: float
    threshold: float
    before: tuple[int, int]
    after: tuple[int, int]
    part: str


class Performance:
    """Watches the errors of the version that serves; `succeed` when another one does.

    `rows_between` is the budget: rows of stationary errors in which the whole family may raise one false alarm.
    The scan compares each recent stretch with all before it: of all rows, of each predicted class, and of each
    third of confidence within a class, as a small change of the world is a large one where the model is unsure.

    >>> family = Performance(classes=2, quiet=500, rows_between=1e6)
    >>> random = np.random.default_rng(7)
    >>> errors = (random.random(4000) < np.where(np.arange(4000) < 3000, 0.05, 0.2)).astype(np.uint8)
    >>> ones = np.ones(4000)
    >>> rows = Judged(errors, errors * ones, ones, ones.astype(np.int64), np.arange(4000))
    >>> [(found.row, found.since_sequence) for found in family.step(rows)]
    [(3137, 2936)]
    """

    def __init__(
        self, classes: int, quiet: int, rows_between: float, detectors: Sequence[str] = tuple(SHARES)
    ) -> None:
        self._classes, self._quiet = classes, quiet
        self._detectors = tuple(detectors)
        total = sum(SHARES[name] for name in self._detectors)
        self._rows_between = {name: rows_between * total / SHARES[name] for name in self._detectors}
        self._thirds = 3 if classes == 2 else 1 if classes > 4 else 2
        self._streams = 1 + classes + (classes * self._thirds if self._thirds > 1 else 0)
        self._adwin = Adwin(min(8.0, 1 / np.exp(self._adwin_log())))
        self._kswin = Kswin(threshold("kswin", 0.5, self._rows_between.get("kswin", 1e9)))
        self.reset()

    def _adwin_log(self) -> float:
        rows = self._rows_between.get("adwin", 1e9)
        return max(threshold("adwin", rate, rows) for rate in (0.01, 0.03, 0.1, 0.2, 0.35, 0.5))

    def reset(self, quiet: int = 0) -> None:
        """Forget what was usual; raise nothing for `quiet` rows."""
        self._n, self._wait = 0, quiet
        self._counts = np.zeros(self._streams, np.int64)
        self._rings = np.zeros((self._streams, RING), np.int64)
        self._marks = np.zeros((self._streams, RING), np.int64)
        self._edges = np.full((self._classes, self._thirds - 1), np.inf)
        self._first = np.zeros((2, 0))
        self._folds = {name: np.zeros(8) for name in FOLDS}
        self._adwin.reset()
        self._kswin.reset()
        self._limits = dict.fromkeys(FOLDS, np.inf)
        self._scan_limits = np.full(self._streams, np.inf)
        self._delta = page_delta(0.1)
        self._before: Performance | None = None

    def succeed(self) -> None:
        """Another version serves, and is its own measure once it has answered enough.

        Until then the last errors of the one before are usual: a world that changes right behind a promotion
        would else be all that the new version knows.
        """
        count, ring = int(self._counts[0]), self._rings[0]
        last = np.arange(count - min(count, HANDOVER_ROWS), count)
        errors = (ring[(last + 1) % RING] - ring[last % RING]).astype(np.uint8)
        sequence = self._marks[0][last % RING]
        self.reset()
        if "scan" not in self._detectors or len(last) < CHUNK:
            return
        # They are usual, whatever they hold: nothing is raised over them.
        self._before = self._scan_alone(quiet=len(last))
        # Of no class: the parts of the new version's rows are its own.
        nothing = np.zeros(len(last))
        self._before.step(Judged(errors, nothing, nothing, np.full(len(last), -1), sequence))

    def _scan_alone(self, quiet: int = 0) -> "Performance":
        """The scan with its share of the budget; it raises nothing for the first `quiet` rows."""
        made = Performance(self._classes, 0, self._rows_between["scan"], ("scan",))
        made.reset(quiet)
        return made

    def step(self, rows: Judged) -> list[Worse]:
        """Fold rows; what was found, in order. After each alarm all is forgotten and the quiet period begins."""
        found: list[Worse] = []
        start = 0
        while start < len(rows):
            length = CHUNK - self._n % CHUNK
            if self._wait > 0:
                length = min(length, self._wait)
            worse = self._fold(rows.take(slice(start, start + length)), start)
            if worse is None:
                start += length
                continue
            found.append(worse)
            start = worse.row + 1
            self.reset(self._quiet)
        return found

    def _fold(self, rows: Judged, offset: int) -> Worse | None:
        """Rows up to the next look, all of them in the quiet period or none."""
        silent = self._wait > 0 or self._n < CHUNK
        row, name = self._others(rows, silent)
        upto = rows if row < 0 else rows.take(slice(0, row + 1))
        scanned, stream = self._scan(upto, silent)
        heard = [] if self._before is None else self._before.step(upto)
        if heard and not 0 <= scanned < heard[0].row:
            return replace(heard[0], row=heard[0].row + offset)
        if scanned >= 0:
            return self._worse(rows, offset, scanned, "scan", stream)
        if row >= 0:
            return self._worse(rows, offset, row, name, 0)
        self._n += len(rows)
        self._wait = max(0, self._wait - len(rows))
        self._look(rows)
        if self._n >= HANDOVER_ROWS:
            self._before = None
        return None

    def _others(self, rows: Judged, silent: bool) -> tuple[int, str]:
        """The first row at which a detector beside the scan raised an alarm, and which; (-1, "") without one."""
        alarms = []
        for order, name in enumerate(self._detectors):
            if name != "scan":
                row = self._run(name, rows, silent)
                if row >= 0 and not silent:
                    alarms.append((row, order, name))
        row, _, name = min(alarms, default=(-1, 0, ""))
        return row, name

    def _run(self, name: str, rows: Judged, silent: bool) -> int:
        """One detector beside the scan over the rows; in a silent stretch it may start anew, but goes on."""
        limit = np.inf if silent else self._limits.get(name, np.inf)
        if name == "page_hinkley":
            return kernels.page_hinkley(rows.errors, 0, self._folds[name], self._delta, PH_FORGET, limit)
        if name == "ddm":
            return kernels.ddm(rows.errors, 0, self._folds[name], limit)
        if name == "hddm_a":
            return kernels.hddm_a(rows.errors, 0, self._folds[name], HD_CONFIDENCE, limit)
        row = -1
        while True:
            if name == "adwin":
                row = self._adwin.step(rows.errors, row + 1)
            else:
                row = self._kswin.step(rows.losses, row + 1)
            if row < 0 or not silent:
                return row

    def _scan(self, rows: Judged, silent: bool) -> tuple[int, int]:
        """The scan over the rows: row and stream of an alarm, or -1."""
        limits = self._scan_limits
        if silent or "scan" not in self._detectors:
            limits = np.full(self._streams, np.inf)
        statistics = np.zeros(self._streams)
        return kernels.scan(
            rows.errors,
            self._members(rows),
            rows.sequence,
            0,
            self._counts,
            self._rings,
            self._marks,
            WINDOWS,
            limits,
            statistics,
        )

    def _members(self, rows: Judged) -> Ints:
        """The streams of each row: all, its predicted class, its third of confidence in that class."""
        members = np.full((len(rows), 3), -1, np.int64)
        members[:, 0] = 0
        known = (rows.predicted >= 0) & (rows.predicted < self._classes)
        predicted = np.where(known, rows.predicted, 0)
        members[known, 1] = 1 + predicted[known]
        if self._thirds > 1 and self._n >= EDGE_ROWS:
            third = (rows.confidence[:, None] > self._edges[predicted]).sum(1)
            cell = 1 + self._classes + predicted * self._thirds + third
            members[known, 2] = cell[known]
        return members

    def _look(self, rows: Judged) -> None:
        """At the end of a chunk: place the thirds once, and take the thresholds at the error rates so far."""
        if self._thirds > 1 and self._n <= EDGE_ROWS:
            self._first = np.hstack([self._first, np.stack([rows.predicted * 1.0, rows.confidence])])
            if self._n == EDGE_ROWS:
                self._place()
        if self._n % CHUNK:
            return
        rate = self._rate(0)
        self._delta = page_delta(rate)
        for name in FOLDS:
            if name in self._detectors:
                self._limits[name] = threshold(name, rate, self._rows_between[name])
        if "scan" in self._detectors:
            for stream in range(self._streams):
                share = self._streams * self._counts[stream] / self._n
                self._scan_limits[stream] = threshold(
                    "scan", self._rate(stream), self._rows_between["scan"] * max(share, 1e-3)
                )

    def _rate(self, stream: int) -> float:
        count = int(self._counts[stream])
        return (float(self._rings[stream, count % RING]) + 0.5) / (count + 1.0)

    def _place(self) -> None:
        predicted, confidence = self._first
        for label in range(self._classes):
            own = confidence[predicted == label]
            if len(own):
                self._edges[label] = np.quantile(own, np.arange(1, self._thirds) / self._thirds)
        self._first = np.zeros((2, 0))

    def _worse(self, rows: Judged, offset: int, row: int, name: str, stream: int) -> Worse:
        count = int(self._counts[stream])
        ring, marks = self._rings[stream], self._marks[stream]
        length = kernels.rows_since(ring, count)
        total, earlier = int(ring[count % RING]), int(ring[(count - length) % RING])
        since = int(marks[(count - length) % RING]) if length else int(rows.sequence[row])
        statistic, limit = self._measured(name, stream)
        before, after = (earlier, count - length), (total - earlier, length)
        return Worse(row + offset, name, since, statistic, limit, before, after, self._part(stream))

    def _measured(self, name: str, stream: int) -> tuple[float, float]:
        """A detector's statistic now and its threshold; of ADWIN, which shows none, the scan's ratio and 0."""
        if name in FOLDS:
            return float(self._folds[name][STATISTIC[name]]), self._limits[name]
        if name == "kswin":
            return self._kswin.statistic, self._kswin.threshold
        ratio = kernels.worst_window(self._rings[stream], int(self._counts[stream]), WINDOWS)
        return ratio, float(self._scan_limits[stream]) if name == "scan" else 0.0

    def _part(self, stream: int) -> str:
        if stream == 0:
            return "all rows"
        if stream <= self._classes:
            return f"rows predicted as class {stream - 1}"
        label, third = divmod(stream - 1 - self._classes, self._thirds)
        return f"rows predicted as class {label}, confidence {third + 1} of {self._thirds}"

    def state(self) -> dict[str, Any]:
        """What `load` takes: the rings trimmed to what is in use."""
        plain = {name: getattr(self, name) for name in STATE}
        before = None if self._before is None else self._before.state()
        return plain | {"adwin": self._adwin.state(), "kswin": self._kswin.state(), "before": before}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        for name in STATE:
            setattr(self, name, state[name])
        self._adwin.load(state["adwin"])
        self._kswin.load(state["kswin"])
        self._before = None
        if state.get("before") is not None:
            self._before = self._scan_alone()
            self._before.load(state["before"])
