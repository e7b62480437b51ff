"""What the loop did to one pipeline, told in events: from columns and records to a story. Pure.

Event number i is the i-th answered event by order time, from 0. Whatever else happened is placed among the
events: an alarm or a decision at the first event behind the record that raised it, a version that came into
force at the first event that it answered.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from services.retrainer.core.metrics import log_loss, roc_auc

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Record = Mapping[str, Any]
Metric = Literal["accuracy", "roc_auc"]
RARE = 0.1
"""Below this share of positives accuracy says little: the area under the ROC curve is told instead."""
POINTS = {"accuracy": 400, "roc_auc": 120}
LEAST_ROWS = 20
"""A figure over fewer outcomes is not told."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions in the order of events: order time (ms), where the event arrived, which model said what."""

    order_time: Ints
    partition: Ints
    offset: Ints
    version: Ints
    registry_offset: Ints
    champion: Mask
    predicted: Ints
    score: Floats

    def __len__(self) -> int:
        return int(self.order_time.size)

    def ordered(self) -> "Answers":
        """The same rows by order time, then by where the event arrived."""
        order = np.lexsort((self.offset, self.partition, self.order_time))
        return Answers(
            self.order_time[order],
            self.partition[order],
            self.offset[order],
            self.version[order],
            self.registry_offset[order],
            self.champion[order],
            self.predicted[order],
            self.score[order],
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """Rows of labeled.v1 by sequence, 0 first: the outcome's order time, its event's place, its class."""

    order_time: Ints
    partition: Ints
    offset: Ints
    outcome: Ints
    counts: Mask
    """False for a shadow's row: it stands beside the row of the version that answered."""

    def __len__(self) -> int:
        return int(self.order_time.size)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, at the event numbered `index`; None where it never took effect.

    `sequence` is the newest outcome that was known, -1 where that is not told; `figure` the trailing metric
    just before.
    """

    what: str
    index: int | None
    sequence: int
    version: int | None
    text: str
    detail: Mapping[str, Any]
    figure: float | None = None


@dataclass(frozen=True, slots=True)
class Reign:
    """A model version's own figures, over the events that it answered."""

    version: int
    digest: str
    kind: str
    state: str
    first: int | None
    events: int
    labelled: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Story:
    """All of it; `trail` holds (event index, trailing metric over the last `window` outcomes)."""

    pipeline: str
    events: int
    labelled: int
    metric: Metric
    window: int
    figures: Mapping[str, float]
    marks: Sequence[Mark]
    reigns: Sequence[Reign]
    trail: Sequence[tuple[int, float]]
    first: int
    last: int

    @property
    def counts(self) -> dict[str, int]:
        """How often each thing happened, in the order of first times."""
        return dict(Counter(mark.what for mark in self.marks))


class Telling:
    """Answers and outcomes put together: each event with its newest outcome, -1 where it has none.

    Args:
        answers: the predictions.
        ledger: the outcomes.
        classes: how many there are.
        positive: index of the class that a score speaks of.
        window: outcomes in a trailing figure.
    """

    def __init__(self, answers: Answers, ledger: Ledger, classes: int, positive: int, window: int) -> None:
        self.answers, self.ledger, self.window = answers, ledger, window
        self._binary, self._positive = classes == 2, positive
        self.truth = newest_outcomes(answers, ledger)
        self.known = np.flatnonzero(self.truth >= 0)
        self._right = self.truth[self.known] == answers.predicted[self.known]
        self._sum = np.concatenate([[0], np.cumsum(self._right)])
        positives = float(np.mean(self.truth[self.known] == positive)) if self.known.size else 0.5
        rare = self._binary and min(positives, 1 - positives) < RARE
        self.metric: Metric = "roc_auc" if rare else "accuracy"

    def index_at(self, order_time: int) -> int:
        """The first event behind an order time."""
        return int(np.searchsorted(self.answers.order_time, order_time, side="right"))

    def index_of(self, sequence: int) -> int | None:
        """The first event behind an outcome of the ledger; None where there is no such outcome."""
        if not 0 <= sequence < len(self.ledger):
            return None
        return self.index_at(int(self.ledger.order_time[sequence]))

    def figure(self, metric: Metric, begin: int, end: int) -> float | None:
        """A metric over events `begin` to `end`; None over too few outcomes."""
        low, high = (int(each) for each in np.searchsorted(self.known, (begin, end)))
        if high - low < LEAST_ROWS:
            return None
        if metric == "accuracy":
            return float(self._sum[high] - self._sum[low]) / (high - low)
        return self._auc(self.known[low:high])

    def trailing(self, index: int) -> float | None:
        """The story's metric over the last outcomes of events before `index`."""
        end = int(np.searchsorted(self.known, index))
        begin = self.known[max(0, end - self.window)] if end else 0
        return self.figure(self.metric, int(begin), index)

    def figures(self, rows: Ints) -> dict[str, float]:
        """Accuracy, and of two classes the area under the ROC curve and the log loss, over known events."""
        if not rows.size:
            return {}
        found = {"accuracy": float(np.mean(self.truth[rows] == self.answers.predicted[rows]))}
        area = self._auc(rows) if self._binary else None
        if area is not None:
            found |= {
                "roc_auc": area,
                "log_loss": log_loss(self.truth[rows] == self._positive, self.answers.score[rows]),
            }
        return found

    def _auc(self, rows: Ints) -> float | None:
        truth = self.truth[rows] == self._positive
        if not self._binary or truth.all() or not truth.any():
            return None
        return roc_auc(truth, self.answers.score[rows])

    def trail(self, begin: int, end: int) -> list[tuple[int, float]]:
        """The trailing metric at evenly spaced events."""
        wanted = min(POINTS[self.metric], max(1, end - begin))
        places = np.unique(np.linspace(begin, end, wanted + 1).round().astype(np.int64))
        found = ((int(at), self.trailing(int(at))) for at in places)
        return [(at, value) for at, value in found if value is not None]


def newest_outcomes(answers: Answers, ledger: Ledger) -> Ints:
    """The class of each answered event by the last row that the ledger has of it; -1 where it has none."""
    truth = np.full(len(answers), -1, np.int64)
    if not len(answers) or not len(ledger):
        return truth
    shift = int(max(answers.offset.max(), ledger.offset.max())) + 1
    places = answers.partition * shift + answers.offset
    order = np.argsort(places, kind="stable")
    rows = np.flatnonzero(ledger.counts)
    wanted = ledger.partition[rows] * shift + ledger.offset[rows]
    at = np.minimum(np.searchsorted(places[order], wanted), len(answers) - 1)
    there = places[order][at] == wanted
    # Rows stand by sequence: of several for one event the last assignment stays.
    truth[order[at[there]]] = ledger.outcome[rows[there]]
    return truth
