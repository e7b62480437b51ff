"""Windows, totals and what is said of them, for each group and slice."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from services.feedback.core.board import (
    DAY_MS,
    EVENT_TIME,
    GROUP,
    OUTCOME,
    SEQUENCE,
    SETTLED,
    SLICES,
    Board,
)
from services.feedback.core.figures import Task, confusion, figures, log_losses, of_confusion
from shared.codec.batch import Floats, Ints, Mask

ROLLING, ALL = "rolling", "all"
PROVISIONAL, FINAL = "provisional", "final"
# Columns of the counts: outcomes said, open ones whose horizon passed; the same of what settled.
_KNOWN, _UNKNOWN, _SETTLED, _UNSETTLED = range(4)


@dataclass(frozen=True, slots=True)
class Figure:
    """One record of scores.v1; `group` names version, digest and role."""

    sequence: int
    order_time: int
    group: int
    slice: str
    metric: str
    value: float
    rows: int
    total: int
    window: str
    coverage: float
    state: str


class Tally:
    """Keeps the windows of a board; `said` gathers what is said of them."""

    def __init__(self, task: Task, board: Board, slices: tuple[str, ...], window: int, every: int) -> None:
        self._task, self._board, self._slices = task, board, slices
        self._window, self._every = window, every
        self._counts: Ints = np.zeros((0, len(slices), 4), np.int64)
        self._confused: Ints = np.zeros((0, len(slices), task.classes, task.classes), np.int64)
        self._losses: Floats = np.zeros((0, len(slices)))
        self.said: list[Figure] = []

    def grow(self, groups: int) -> None:
        """Make room for so many groups."""
        more = groups - self._counts.shape[0]
        if more > 0:
            for name in ("_counts", "_confused", "_losses"):
                held = getattr(self, name)
                setattr(self, name, np.concatenate([held, np.zeros((more, *held.shape[1:]), held.dtype)]))

    def hits(self, rows: Ints, fresh: Mask) -> Ints:
        """Where figures are due: one behind each row that completes another `every`; `fresh` rows count."""
        found = [np.empty(0, np.int64)]
        for group in np.unique(rows[:, GROUP]).tolist():
            own = np.flatnonzero((rows[:, GROUP] == group) & (rows[:, OUTCOME] >= 0) & fresh)
            for which in range(len(self._slices)):
                inside = own[(rows[own, SLICES] >> which) & 1 == 1]
                before = int(self._counts[group, which, _KNOWN])
                found.append(inside[(before + np.arange(1, inside.size + 1)) % self._every == 0] + 1)
        return np.concatenate(found)

    def add(self, rows: Ints, floats: Floats, late: bool) -> None:
        """Outcomes, in the order of the ledger; a late one had been counted as open."""
        first = self._board.add(rows, floats)
        numbers = np.arange(first, first + rows.shape[0])
        for group, which, inside in self._each(numbers):
            known = inside[self._board.rows[inside, OUTCOME] >= 0]
            counts = self._counts[group, which]
            counts[_KNOWN] += known.size
            counts[_UNKNOWN] += inside.size - known.size - (known.size if late else 0)
            self._push(self._board.newest, (group, which), known)

    def say_newest(self, row: Ints, time: int) -> None:
        """Figures over the newest outcomes, where `row`, the newest of all, completes another `every`."""
        group = int(row[GROUP])
        for which in range(len(self._slices)):
            known, unknown = self._counts[group, which, : _UNKNOWN + 1].tolist()
            if row[OUTCOME] >= 0 and (row[SLICES] >> which) & 1 and known and known % self._every == 0:
                members = self._board.newest[group, which][-self._window :]
                values = figures(self._task, self._board.judged(members))
                coverage = known / (known + unknown)
                place = (int(row[SEQUENCE]), time, group, which)
                self._say(place, values, members.size, known, ROLLING, coverage, PROVISIONAL)

    def settle(self, numbers: Ints, settling: int) -> None:
        """These outcomes, in the order of their events, change no more in time."""
        self._board.rows[numbers, SETTLED] = 1
        ends = [(numbers.size, -1, -1)]
        place = np.empty(self._board.count, np.int64)
        place[numbers] = np.arange(numbers.size)
        for group, which, inside in self._each(numbers):
            known = inside[self._board.rows[inside, OUTCOME] >= 0]
            before = int(self._counts[group, which, _SETTLED])
            due = known[(before + np.arange(1, known.size + 1)) % self._every == 0]
            ends += [(int(place[n]) + 1, group, which) for n in due.tolist()]
        done = 0
        for end, group, which in sorted(ends, key=lambda e: (e[0], e[1] < 0, e)):
            self._settle_some(numbers[done:end])
            done = end
            if group >= 0:
                self._say_settled(group, which, settling)

    def _settle_some(self, numbers: Ints) -> None:
        for group, which, inside in self._each(numbers):
            known = inside[self._board.rows[inside, OUTCOME] >= 0]
            counts = self._counts[group, which]
            counts[_SETTLED] += known.size
            counts[_UNSETTLED] += inside.size - known.size
            if known.size:
                judged = self._board.judged(known)
                self._confused[group, which] += confusion(self._task, judged)
                # A running sum from the left is the same however the rows are cut.
                losses = np.concatenate([[self._losses[group, which]], log_losses(self._task, judged)])
                self._losses[group, which] = np.cumsum(losses)[-1]
                self._push(self._board.settled, (group, which), known)

    def revise(self, number: int, outcome: int, sequence: int) -> None:
        """The outcome of row `number` has changed."""
        row = self._board.rows[number]
        for sign in (-1, 1):
            if sign > 0:
                row[OUTCOME], row[SEQUENCE] = outcome, sequence
            if row[SETTLED]:
                judged = self._board.judged(np.array([number]))
                loss = float(log_losses(self._task, judged)[0])
                for group, which, _ in self._each(np.array([number])):
                    self._confused[group, which] += sign * confusion(self._task, judged)
                    self._losses[group, which] += sign * loss

    def say_settled_again(self, number: int, settling: int) -> None:
        """The last settled windows that hold this row."""
        for group, which, _ in self._each(np.array([number])):
            members = self._board.settled.get((group, which), np.empty(0, np.int64))
            beyond = int(self._counts[group, which, _SETTLED]) % self._every
            if number in members[: members.size - beyond][-self._window :]:
                self._say_settled(group, which, settling)

    def _say_settled(self, group: int, which: int, settling: int) -> None:
        """Figures over what settled up to the last full `every`, and over all that settled."""
        settled, unsettled = self._counts[group, which, _SETTLED:].tolist()
        members = self._board.settled[group, which]
        members = members[: members.size - settled % self._every][-self._window :]
        rows = self._board.rows[members]
        coverage = settled / (settled + unsettled)
        place = (int(rows[:, SEQUENCE].max()), int(rows[-1, EVENT_TIME]) + settling, group, which)
        total = settled - settled % self._every
        values = figures(self._task, self._board.judged(members))
        self._say(place, values, members.size, total, ROLLING, coverage, FINAL)
        whole = of_confusion(self._task, self._confused[group, which])
        whole["log_loss"] = float(self._losses[group, which]) / settled
        self._say(place, whole, settled, settled, ALL, coverage, FINAL)

    def say_day(self, group: int, day: int, time: int) -> None:
        """Figures over the events of one day (days since 1970, UTC) of a group that has any."""
        numbers = self._board.of_day(group, day)
        name = f"day:{datetime.fromtimestamp(day * DAY_MS / 1_000, UTC):%Y-%m-%d}"
        for which in range(len(self._slices)):
            inside = self._board.in_slice(numbers, which)
            known = inside[self._board.rows[inside, OUTCOME] >= 0]
            if known.size:
                rows = self._board.rows[known]
                values = figures(self._task, self._board.judged(known), of_day=True)
                coverage = known.size / (known.size + self._still_open(inside))
                place = (int(rows[:, SEQUENCE].max()), time, group, which)
                self._say(place, values, known.size, known.size, name, coverage, FINAL)

    def _still_open(self, numbers: Ints) -> int:
        """How many of these rows have no outcome, and none that came late either."""
        rows = self._board.rows
        open_rows = numbers[rows[numbers, OUTCOME] < 0].tolist()
        return sum(self._board.find(rows[number]) == number for number in open_rows)

    def _each(self, numbers: Ints) -> list[tuple[int, int, Ints]]:
        """Rows by group and slice, in their order."""
        groups = self._board.rows[numbers, GROUP]
        owned = [(group, numbers[groups == group]) for group in np.unique(groups).tolist()]
        return [
            (group, which, self._board.in_slice(own, which))
            for group, own in owned
            for which in range(len(self._slices))
        ]

    def _push(self, windows: dict[tuple[int, int], Ints], key: tuple[int, int], numbers: Ints) -> None:
        """Behind the window's rows; what is behind the last `every` is kept too, for windows said anew."""
        if numbers.size:
            held = windows.get(key, np.empty(0, np.int64))
            windows[key] = np.concatenate([held, numbers])[-(self._window + self._every) :]

    def _say(
        self,
        place: tuple[int, int, int, int],
        values: Mapping[str, float],
        rows: int,
        total: int,
        window: str,
        coverage: float,
        state: str,
    ) -> None:
        sequence, time, group, which = place
        name = self._slices[which]
        self.said += [
            Figure(sequence, time, group, name, metric, values[metric], rows, total, window, coverage, state)
            for metric in sorted(values)
        ]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Counts and sums."""
        return {
            "counts": self._counts.copy(),
            "confused": self._confused.copy(),
            "losses": self._losses.copy(),
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `arrays` gave."""
        self._counts, self._confused = arrays["counts"].copy(), arrays["confused"].copy()
        self._losses = arrays["losses"].copy()
