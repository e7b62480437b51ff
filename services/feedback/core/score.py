"""The ledger and its figures: numbers outcomes in the merged order, and keeps score of each version.

Figures of a group (version and role) and slice are said over its newest `window` outcomes at every `every`
outcomes (provisional); over those that settled, in the order of their events, the same way (final); over all
that settled so far; and over each day once it has settled. When a late label or a correction changes an
outcome, its day and the last settled window are said anew.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from services.feedback.core.board import (
    COLUMNS,
    DAY_MS,
    EVENT_TIME,
    GROUP,
    OFFSET,
    OUTCOME,
    PARTITION,
    PREDICTED,
    SEQUENCE,
    SETTLED,
    SETTLES,
    SLICES,
    Board,
)
from services.feedback.core.classes import read_doubles
from services.feedback.core.figures import Task
from services.feedback.core.groups import Groups
from services.feedback.core.spec import JoinSpec
from services.feedback.core.tally import Figure, Tally
from services.feedback.core.walk import SAYS_CORRECTION, SAYS_LATE
from shared.codec.arrays import digest_of
from shared.codec.batch import Batch, Floats, Ints, Mask
from shared.contracts.expressions import Expression, Kind, compile_expression
from shared.runtime.merge import NEVER

COMPACT_AT = 32_768
STEPS = 64
"""Outcomes settle in steps of so many to the horizon: to look for them at each row would cost too much."""
_PREFIX = "event."


class ScoreFold:
    """The fold over rows of joined.v1 in merged order; `said` holds what the last step scored."""

    def __init__(self, spec: JoinSpec) -> None:
        self._spec, label, policy = spec, spec.label, spec.pipeline.policy
        positive = label.class_index(label.positive)
        self._task = Task(
            len(spec.classes), 1 if positive is None else positive, policy.scores.cost, policy.scores.top_k
        )
        kinds: dict[str, Kind] = dict.fromkeys(spec.features, "number")
        self._slices: list[Expression] = [compile_expression(s.expression, kinds) for s in policy.slices]
        names = ("all", *(each.name for each in policy.slices))
        self._settling = label.horizon_ms + spec.pipeline.allowed_lateness_ms
        self._kept = self._settling + label.hold_ms + DAY_MS
        self._grid = max(1, self._settling // STEPS)
        self.groups = Groups()
        self._board = Board(spec.width)
        self._tally = Tally(self._task, self._board, names, policy.scores.window, policy.scores.every)
        self._sequence, self._frontier = 0, NEVER
        self._compact_at = COMPACT_AT
        self.said: list[Figure] = []

    def step(self, batch: Batch) -> Batch:
        """Number the outcomes that have a class; the rows for labeled.v1 come back."""
        self.said = self._tally.said = []
        if not batch.rows:
            return Batch()
        inner = {n.removeprefix(_PREFIX): c for n, c in batch.columns.items() if n.startswith(_PREFIX)}
        rows = Batch(inner, batch.rows).having(order_time=batch["order_time"], late=batch["late"])
        known: Mask = rows["label_class"].array >= 0
        sequence = self._sequence + np.cumsum(known) - 1
        self._sequence += int(np.count_nonzero(known))
        self._score(rows, sequence)
        if self._board.count >= self._compact_at:
            self._compact()
            self._compact_at = max(COMPACT_AT, 2 * self._board.count)
        return rows.having(sequence=sequence).take(known)

    # Scoring, piece by piece: figures are said at the end of a piece only.

    def _score(self, rows: Batch, sequence: Ints) -> None:
        made, floats = self._board_rows(rows, sequence)
        self._tally.grow(len(self.groups))
        time, kind = rows["order_time"].array, rows["kind"].array
        before = rows["previous_class"].array
        alone: Mask = (kind == SAYS_LATE) | (kind == SAYS_CORRECTION) | (made[:, SETTLES] == 0)
        revises: Mask = (kind == SAYS_CORRECTION) | ((kind == SAYS_LATE) & (before >= 0))
        single = np.flatnonzero(alone)
        cuts = np.unique(
            np.concatenate([self._tally.hits(made, ~revises), single, single + 1, [0, rows.rows]])
        )
        for first, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            if alone[first]:
                self._settle(int(time[first]))
            if revises[first]:
                self._revise(made[first])
                continue
            self._tally.add(made[first:end], floats[first:end], late=bool(kind[first] == SAYS_LATE))
            self._settle(int(time[end - 1]))
            if alone[first]:
                self._tell_day_again(made[first])
            self._tally.say_newest(made[end - 1], int(time[end - 1]))

    def _board_rows(self, rows: Batch, sequence: Ints) -> tuple[Ints, Floats]:
        """The rows as the board holds them."""
        made = np.zeros((rows.rows, COLUMNS), np.int64)
        made[:, GROUP] = self.groups.of(rows)
        made[:, PARTITION], made[:, OFFSET] = rows["event_partition"].array, rows["event_offset"].array
        made[:, OUTCOME], made[:, EVENT_TIME] = rows["label_class"].array, rows["event_time"].array
        made[:, PREDICTED] = self._predicted(rows)
        made[:, SEQUENCE], made[:, SLICES] = sequence, self._bits(rows)
        in_time = rows["label_time"].array <= made[:, EVENT_TIME] + self._settling
        kind = rows["kind"].array
        made[:, SETTLES] = in_time & (kind != SAYS_LATE) & (kind != SAYS_CORRECTION)
        floats = np.zeros((rows.rows, 1 + self._spec.width))
        floats[:, 0] = rows["score"].array
        if self._spec.width:
            floats[:, 1:] = read_doubles(rows["probabilities"], self._spec.width)
        return made, floats

    def _predicted(self, rows: Batch) -> Ints:
        """The predicted class; of two, by the score where the prediction does not say."""
        said = rows["predicted_class"].array.astype(np.int64)
        if self._task.binary:
            positive = self._task.positive
            by_score = np.where(rows["score"].array >= 0.5, positive, 1 - positive)
            return np.where(said < 0, by_score, said)
        return np.maximum(said, 0)

    def _bits(self, rows: Batch) -> Ints:
        """Bit 0 of each row, and bit k where it is in slice k."""
        bits = np.ones(rows.rows, np.int64)
        columns = {name: rows[f"features.{name}"].array for name in self._spec.features}
        for at, expression in enumerate(self._slices, 1):
            value = expression.evaluate(columns)
            bits |= ((value != 0) & ~np.isnan(value)).astype(np.int64) << at
        return bits

    # Settling and revising.

    def _settle(self, time: int) -> None:
        """Settle the outcomes of events that order time `time` has passed by horizon and lateness."""
        reached = (time - self._settling) // self._grid * self._grid
        if reached <= self._frontier:
            return
        due = self._board.due(reached)
        days = self._board.days(self._frontier, reached)
        when = self._board.rows[due, EVENT_TIME]
        done = 0
        for day in days:
            upto = int(np.searchsorted(when, (day + 1) * DAY_MS))
            self._tally.settle(due[done:upto], self._settling)
            done = upto
            for group in range(len(self.groups)):
                self._tally.say_day(group, day, (day + 1) * DAY_MS + self._settling)
        self._tally.settle(due[done:], self._settling)
        self._frontier = reached

    def _revise(self, row: Ints) -> None:
        """An outcome has changed; one that is no longer kept has had its say."""
        number = self._board.find(row)
        if number is None:
            return
        self._tally.revise(number, int(row[OUTCOME]), int(row[SEQUENCE]))
        if self._board.rows[number, SETTLED]:
            self._tally.say_settled_again(number, self._settling)
        self._tell_day_again(self._board.rows[number])

    def _tell_day_again(self, row: Ints) -> None:
        day = int(row[EVENT_TIME]) // DAY_MS
        end = (day + 1) * DAY_MS
        if end <= self._frontier:
            self._tally.say_day(int(row[GROUP]), day, end + self._settling)

    # State.

    def _compact(self) -> None:
        oldest = self._frontier + self._settling - self._kept if self._frontier != NEVER else NEVER
        self._board.compact(oldest)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Where the ledger stands, the groups, the board and the tallies."""
        self._compact()
        parts = {"groups": self.groups.arrays(), "board": self._board.arrays(), "tally": self._tally.arrays()}
        arrays = {f"{part}|{name}": array for part, held in parts.items() for name, array in held.items()}
        return {**arrays, "place": np.array([self._sequence, self._frontier], np.int64)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `snapshot` gave."""
        for part, owner in (("groups", self.groups), ("board", self._board), ("tally", self._tally)):
            prefix = f"{part}|"
            owner.restore({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        self._sequence, self._frontier = (int(x) for x in arrays["place"])

    def digest(self) -> str:
        """sha256 over all of it."""
        return digest_of(self.snapshot())
