"""The ledger of outcomes as rows to learn from: of each event the newest class, in the order of first outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Strings
from shared.codec.hashing import xxh64_strings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LABEL, MISSING, LATE, CORRECTION = range(4)
SHADOW = b"shadow"


@dataclass(frozen=True, slots=True)
class LedgerRows:
    """Rows of labeled.v1 by sequence, all columns of one length; ids are compared by their XXH64."""

    sequences: Ints
    ids: npt.NDArray[np.uint64]
    kinds: Ints
    classes: Ints
    previous: Ints
    shadow: Mask
    event_times: Ints
    sources: tuple[str, ...]
    """Every source named in these rows, sorted."""
    source: Ints
    """Index into `sources`."""
    matrix: Floats


@dataclass(frozen=True, slots=True)
class LearningRows:
    """One row an event, by the sequence at which its first outcome was known; `classes` is the newest known.

    `matrix` float64[n, k] as served, `classes` int64[n], `source` int64[n] into `sources`.
    """

    sequences: Ints
    ids: npt.NDArray[np.uint64]
    classes: Ints
    event_times: Ints
    sources: tuple[str, ...]
    source: Ints
    matrix: Floats

    def __len__(self) -> int:
        return len(self.sequences)

    def last(self, rows: int) -> "LearningRows":
        """The newest rows."""
        return self.pick(np.arange(max(0, len(self) - rows), len(self)))

    def pick(self, index: npt.NDArray[np.int64]) -> "LearningRows":
        """The rows that `index` names, in its order."""
        return LearningRows(
            self.sequences[index],
            self.ids[index],
            self.classes[index],
            self.event_times[index],
            self.sources,
            self.source[index],
            np.ascontiguousarray(self.matrix[index]),
        )


def hashed(texts: Strings) -> npt.NDArray[np.uint64]:
    """XXH64 of each text."""
    return np.asarray(xxh64_strings(texts), np.uint64)


def is_fresh(roles: Strings, previous: Ints) -> Mask:
    """Which rows are an event's first outcome for the version that answered."""
    return ~is_shadow(roles) & (previous < 0)


def is_shadow(roles: Strings) -> Mask:
    """Which rows speak of a version that answered beside the one in force."""
    return np.asarray(hashed(roles) == hashed(Strings.of([SHADOW]))[0], np.bool_)


def learnable(rows: LedgerRows) -> LearningRows:
    """Each event once, with its newest class; no shadows, and no revisions of what these rows do not hold."""
    kept = np.flatnonzero(~rows.shadow)
    ids = rows.ids[kept]
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    last = np.zeros(len(first), np.int64)
    last[inverse] = np.arange(len(ids))  # the last assignment to an index stands
    whole = rows.previous[kept[first]] < 0
    order = np.argsort(first[whole], kind="stable")
    begin, end = kept[first[whole][order]], kept[last[whole][order]]
    return LearningRows(
        rows.sequences[begin],
        rows.ids[begin],
        rows.classes[end],
        rows.event_times[begin],
        rows.sources,
        rows.source[end],
        np.ascontiguousarray(rows.matrix[begin]),
    )


def reach_back(fresh: Sequence[int], wanted: int) -> int:
    """How many of the newest segments hold `wanted` first outcomes; `fresh` is a segment's count, oldest first.

    >>> reach_back([10, 10, 5], 12)
    2
    """
    total = 0
    for number, count in enumerate(reversed(fresh), 1):
        total += count
        if total >= wanted:
            return number
    return len(fresh)


def wanted_rows(window_rows: int, validation: float) -> int:
    """Events that a dataset reaches back for: a window, and the validation rows behind it.

    >>> wanted_rows(10_000, 0.2)
    12000
    """
    return window_rows + max(1, int(window_rows * validation))
