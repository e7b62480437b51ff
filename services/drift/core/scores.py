"""The prediction family: do the answers look as they did, and how good are they by their own account?"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from services.drift.core.histograms import chance, psi
from services.drift.core.kernels import Floats, Ints
from services.drift.core.performance import Judged

EVERY = 100
"""Rows between two looks."""
CURRENT = 500
"""Newest rows that are compared with the reference."""
BINS = 10
MEMORY = 0.1
"""Weight of the newest window in the estimate's own error."""
TESTS = 4
SCORE, RIGHT, PREDICTED, SURE = range(4)


@dataclass(frozen=True, slots=True)
class Shift:
    """Row `row` of the call raised an alarm."""

    row: int
    detector: str
    subject: str
    since_sequence: int
    statistic: float
    threshold: float
    reference: dict[str, Any]
    current: dict[str, Any]
    detail: str


class Estimate:
    """Accuracy without labels (CBPE): how often answers of this confidence were right in the reference.

    Bins of equal count, made to rise with confidence by pooling; `error` is how far it was off of late, known
    once labels come.

    >>> estimate = Estimate(np.array([0.6, 0.6, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0]))
    >>> estimate.of(np.array([0.6, 0.9])).round(2).tolist()
    [0.5, 1.0]
    """

    def __init__(self, confidence: Floats, right: Floats) -> None:
        self.edges: Floats = np.unique(np.quantile(confidence, np.arange(1, BINS) / BINS, method="higher"))
        place = np.searchsorted(self.edges, confidence, side="right")
        rows = np.bincount(place, minlength=len(self.edges) + 1).astype(np.float64)
        hits = np.bincount(place, weights=right, minlength=len(self.edges) + 1).astype(np.float64)
        self.rates = rising(hits, rows)

    def of(self, confidence: Floats) -> Floats:
        """The chance that each answer is right."""
        return self.rates[np.searchsorted(self.edges, confidence, side="right")]


def rising(hits: Floats, rows: Floats) -> Floats:
    """Rates hits/rows made non-decreasing by pooling neighbours (isotonic regression); an empty bin joins one.

    >>> rising(np.array([1.0, 0.0, 3.0]), np.array([2.0, 2.0, 3.0])).tolist()
    [0.25, 0.25, 1.0]
    """
    pools: list[list[float]] = []
    for hit, row in zip(hits.tolist(), rows.tolist(), strict=True):
        pools.append([hit, row, 1.0])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    return np.repeat([hit / row if row else 0.5 for hit, row, _ in pools], [int(n) for _, _, n in pools])


class Prediction:
    """Compares the newest scores with those of the reference of this model version; `reset` with another one.

    Kolmogorov-Smirnov and PSI of the scores, PSI of the predicted classes, and the estimated accuracy, one-sided:
    that a model is surer of itself is no alarm. `rows_between` is the budget of all four.
    """

    def __init__(self, classes: int, reference: int, quiet: int, rows_between: float) -> None:
        self._classes, self._size, self._quiet = classes, reference, quiet
        self._probability = EVERY / rows_between / TESTS
        self.reset()

    def reset(self, quiet: int = 0) -> None:
        """Forget what was usual; raise nothing for `quiet` rows."""
        self._n, self._wait = 0, quiet
        self._reference = np.zeros((0, 4))
        self._current = np.zeros((0, 4))
        self._marks: Ints = np.zeros(0, np.int64)
        self._usual: Usual | None = None
        self.error = math.nan

    def step(self, rows: Judged, scores: Floats) -> list[Shift]:
        """Fold rows with their scores; what was found, at most one a look."""
        table = np.stack(
            [np.nan_to_num(scores), 1.0 - rows.errors, rows.predicted * 1.0, rows.confidence], axis=1
        )
        found: list[Shift] = []
        start = 0
        while start < len(table):
            end = min(len(table), start + EVERY - self._n % EVERY)
            self._take(table[start:end], rows.sequence[start:end])
            start = end
            if self._n % EVERY == 0 and len(self._reference) == self._size and len(self._current) == CURRENT:
                shift = self._look(end - 1)
                if shift is not None and self._wait <= 0:
                    found.append(shift)
                    self.reset(self._quiet)
        return found

    def _take(self, table: Floats, sequence: Ints) -> None:
        self._n += len(table)
        self._wait -= len(table)
        room = max(0, self._size - len(self._reference))
        self._reference = np.vstack([self._reference, table[:room]]) if room else self._reference
        self._current = np.vstack([self._current, table[room:]])[-CURRENT:]
        self._marks = np.concatenate([self._marks, sequence[room:]])[-CURRENT:]

    def _look(self, row: int) -> Shift | None:
        n, m = len(self._reference), len(self._current)
        usual = self._usual or Usual.of(self._reference)
        self._usual = usual
        was, now = usual.counts, _counts(self._current[:, SCORE], usual.edges)
        distance = math.sqrt(n * m / (n + m)) * ks_distance(usual.ordered, self._current[:, SCORE])
        tests = [
            ("ks", "score", distance, math.sqrt(-math.log(self._probability / 2) / 2)),
            ("psi", "score", psi(was, now), chance(len(was), n, m, self._probability)),
            self._classes_moved(),
            self._estimated(usual),
        ]
        detector, subject, statistic, limit = max(tests, key=lambda test: test[2] / test[3])
        if statistic <= limit:
            return None
        shown = [float(each) for each in usual.edges]
        return Shift(
            row,
            detector,
            subject,
            int(self._marks[0]),
            statistic,
            limit,
            {"edges": shown, "counts": was.tolist()},
            {"edges": shown, "counts": now.tolist()},
            self._told(usual),
        )

    def _classes_moved(self) -> tuple[str, str, float, float]:
        was, now = (
            np.bincount(np.maximum(table[:, PREDICTED], 0).astype(np.int64), minlength=self._classes)
            for table in (self._reference, self._current)
        )
        some = (was + now) > 0
        limit = chance(int(some.sum()), int(was.sum()), int(now.sum()), self._probability)
        return "psi", "predicted", psi(was[some], now[some]), limit

    def _estimated(self, usual: "Usual") -> tuple[str, str, float, float]:
        """The fall of the estimated accuracy and what chance, or the estimate's own error, allows."""
        now = usual.estimate.of(self._current[:, SURE])
        off = abs(float(now.mean() - self._current[:, RIGHT].mean()))
        self.error = off if math.isnan(self.error) else (1 - MEMORY) * self.error + MEMORY * off
        noise = usual.deviation * math.sqrt(1 / len(self._reference) + 1 / len(now))
        limit = max(-float(ndtri(self._probability)) * noise, self.error, 1e-9)
        return "estimated_accuracy", "score", usual.accuracy - float(now.mean()), limit

    def _told(self, usual: "Usual") -> str:
        """The newest estimate in words."""
        now = float(usual.estimate.of(self._current[:, SURE]).mean())
        return (
            f"accuracy estimated without labels: {usual.accuracy:.1%} before, {now:.1%} now, "
            f"off by {self.error:.1%}"
        )

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {name: getattr(self, name) for name in STATE}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read, with the first rows of a reference that was longer."""
        for name in STATE:
            setattr(self, name, state[name])
        self._reference = self._reference[: self._size]
        self._usual = None


@dataclass(frozen=True, slots=True)
class Usual:
    """What is read off a full reference once: a function of its rows, so no part of the state."""

    edges: Floats
    counts: Ints
    ordered: Floats
    estimate: Estimate
    accuracy: float
    deviation: float

    @classmethod
    def of(cls, reference: Floats) -> "Usual":
        """Of the rows of a reference."""
        scores = reference[:, SCORE]
        edges = np.unique(np.quantile(scores, np.arange(1, BINS) / BINS))
        estimate = Estimate(reference[:, SURE], reference[:, RIGHT])
        expected = estimate.of(reference[:, SURE])
        return cls(
            edges,
            _counts(scores, edges),
            np.sort(scores),
            estimate,
            float(expected.mean()),
            float(expected.std()),
        )


SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
STATE = ("_n", "_wait", "_reference", "_current", "_marks", "error")


def ks_distance(before: Floats, after: Floats) -> float:
    """Largest gap between two empirical distributions, `before` ascending; 0 to 1, ties counted once.

    It is reached at a value of `after`, or just below one.
    """
    after = np.sort(after)
    gaps = [
        np.searchsorted(before, after, side) / len(before) - np.searchsorted(after, after, side) / len(after)
        for side in SIDES
    ]
    return float(np.abs(gaps).max())


def _counts(values: Floats, edges: Floats) -> Ints:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
