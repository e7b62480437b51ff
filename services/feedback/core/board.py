"""The outcomes that figures may still need, and which of them stand in the windows of each version and slice.

Rows stand in the order of the ledger. A *group* is one version in one role. Two windows run over each group and
slice: the newest rows of the ledger, and the newest *settled* rows in the order of their events. A row settles
when the order time has passed its event by horizon and allowed lateness; nothing that comes in time can then
still come before it, so that settled windows do not depend on the order in which labels came.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from services.feedback.core.book import grown
from services.feedback.core.figures import Judged
from shared.codec.batch import Floats, Ints, Mask

GROUP, PARTITION, OFFSET, OUTCOME, PREDICTED, EVENT_TIME, SEQUENCE, SLICES, SETTLES, SETTLED, COLUMNS = range(
    11
)
_LEAST = 1_024
DAY_MS = 86_400_000
Place = tuple[int, int, int]


class Board:
    """Rows int64[n, COLUMNS] beside score and chances float64[n, 1 + classes], by number."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.rows: Ints = np.zeros((_LEAST, COLUMNS), np.int64)
        self.floats: Floats = np.zeros((_LEAST, 1 + width))
        self.count = 0
        # Where each event stands, of the first `_found` rows: made up when somebody asks.
        self._at: dict[Place, int] = {}
        self._found = 0
        self.newest: dict[tuple[int, int], Ints] = {}
        self.settled: dict[tuple[int, int], Ints] = {}

    def add(self, rows: Ints, floats: Floats) -> int:
        """Append rows; the number of the first."""
        first, end = self.count, self.count + rows.shape[0]
        self.rows, self.floats = grown(self.rows, end), grown(self.floats, end)
        self.rows[first:end], self.floats[first:end] = rows, floats
        self.count = end
        return first

    def find(self, row: Ints) -> int | None:
        """The newest row of the same group and event; None where it is not kept."""
        fresh = self.rows[self._found : self.count, [GROUP, PARTITION, OFFSET]].tolist()
        for number, place in enumerate(fresh, self._found):
            self._at[(place[0], place[1], place[2])] = number
        self._found = self.count
        return self._at.get((int(row[GROUP]), int(row[PARTITION]), int(row[OFFSET])))

    def judged(self, numbers: Ints) -> Judged:
        """Outcome and answer of these rows."""
        rows, floats = self.rows[numbers], self.floats[numbers]
        return Judged(rows[:, OUTCOME], rows[:, PREDICTED], floats[:, 0], floats[:, 1:])

    def in_slice(self, numbers: Ints, which: int) -> Ints:
        """Those of `numbers` that are in the slice; slice 0 is all."""
        inside: Mask = (self.rows[numbers, SLICES] >> which) & 1 == 1
        return numbers[inside]

    def due(self, before: int) -> Ints:
        """Rows that settle at an event time below `before` and have not yet, in the order of their events."""
        rows = self.rows[: self.count]
        return self._by_event(
            (rows[:, SETTLES] == 1) & (rows[:, SETTLED] == 0) & (rows[:, EVENT_TIME] < before)
        )

    def of_day(self, group: int, day: int) -> Ints:
        """The group's rows of events of that day (days since 1970, UTC), in the order of their events."""
        rows = self.rows[: self.count]
        return self._by_event((rows[:, GROUP] == group) & (rows[:, EVENT_TIME] // DAY_MS == day))

    def days(self, start: int, end: int) -> list[int]:
        """The days that have rows and end in (start, end]."""
        found = np.unique(self.rows[: self.count, EVENT_TIME] // DAY_MS)
        ends = (found + 1) * DAY_MS
        return [int(day) for day in found[(ends > start) & (ends <= end)]]

    def _by_event(self, mask: Mask) -> Ints:
        found = np.flatnonzero(mask)
        keys = self.rows[found]
        return found[np.lexsort((keys[:, OFFSET], keys[:, PARTITION], keys[:, EVENT_TIME]))]

    def compact(self, needed_from: int) -> None:
        """Let go of rows that no window holds and whose event is older than `needed_from`."""
        rows = self.rows[: self.count]
        keep: Mask = rows[:, EVENT_TIME] >= needed_from
        for members in (*self.newest.values(), *self.settled.values()):
            keep[members] = True
        kept = np.flatnonzero(keep)
        place = np.cumsum(keep) - 1
        self.newest = {key: place[members] for key, members in self.newest.items()}
        self.settled = {key: place[members] for key, members in self.settled.items()}
        rows, floats = rows[kept], self.floats[kept]
        self.count, self._at, self._found = 0, {}, 0
        self.rows = np.zeros((_LEAST, COLUMNS), np.int64)
        self.floats = np.zeros((_LEAST, 1 + self._width))
        self.add(rows, floats)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it, after `compact`."""
        made: dict[str, npt.NDArray[Any]] = {
            "rows": self.rows[: self.count].copy(),
            "floats": self.floats[: self.count].copy(),
        }
        for name, windows in (("newest", self.newest), ("settled", self.settled)):
            keys = sorted(windows)
            made[f"{name}|keys"] = np.array(keys, np.int64).reshape(-1, 2)
            made[f"{name}|lengths"] = np.array([windows[key].size for key in keys], np.int64)
            made[f"{name}|members"] = np.concatenate([np.empty(0, np.int64), *(windows[key] for key in keys)])
        return made

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `arrays` gave."""
        self.count, self._at, self._found = 0, {}, 0
        self.newest, self.settled = {}, {}
        self.add(arrays["rows"], arrays["floats"])
        for name, windows in (("newest", self.newest), ("settled", self.settled)):
            parts = np.split(arrays[f"{name}|members"], np.cumsum(arrays[f"{name}|lengths"])[:-1])
            for key, members in zip(arrays[f"{name}|keys"].tolist(), parts, strict=False):
                windows[(key[0], key[1])] = members.copy()
