"""A list of window specs, compiled to the tables that the kernels interpret.

Specs that share window and delay share a *frame*: two positions in the entity's events, sorted by time. What is
aggregated in a frame is one of three things, each needed once however many specs ask for it:

- a *tally*: an integer that grows and shrinks exactly (events with a value, labelled events, label sum);
- a *monoid* over a value column (double-double sum, min, max, last, variance), which is never subtracted from;
- a *distinct*: a number of different codes, counted in a table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from services.features.core.monoids import LAST, MAX, MIN, SUM, VAR, WIDTH
from services.features.core.spec import LABEL, Aggregate, WindowSpec, check_specs
from shared.codec.batch import Floats, Ints

# Columns of an event row, in 64-bit words: time, then (with labels) id hash and label, codes, values, monoids.
TIME, IDENT, LABELLED = 0, 1, 2
# Columns of an entity row; then per frame FRAME words, then the tallies, then the distincts.
START, CAPACITY, BEGIN, END, NEWEST, HELD, LIVE, FIRST_FRAME = range(8)
LO, HI, FLIP, FRONT, FRAME = range(5)
# Columns of a row of `frames`.
WINDOW, DELAY, MONOIDS, MONOIDS_END, TALLIES, TALLIES_END, DISTINCTS, DISTINCTS_END = range(8)
# Kinds of tally.
PRESENT, LABELS, LABEL_SUM, POSITIVES = range(4)
# Kinds of output: over counts up to OUT_RATIO, then over rows and values.
OUT_COUNT, OUT_TALLY, OUT_RATIO, OUT_SINCE, OUT_SUM, OUT_MEAN, OUT_PLAIN, OUT_STD = range(8)
_DISTINCT = -1
_RATIO_OF_ALL = -1
_DAY_MS = 86_400_000

_MONOID = {Aggregate.MIN: MIN, Aggregate.MAX: MAX, Aggregate.LAST: LAST}


class Plan(NamedTuple):
    """What the kernels read: one row a frame, monoid, tally, distinct and output.

    `frames`: window, delay, and the frame's begin and end in each of the next three tables. `monoids`: frame,
    operation, value column, monoid column. `tallies`: frame, kind, value column (or the positive label),
    entity column. `distincts`: frame, code column, entity column. `outputs`: kind, frame, and two operands by
    kind (rows of `monoids`, entity columns).
    """

    frames: Ints
    monoids: Ints
    tallies: Ints
    distincts: Ints
    outputs: Ints
    defaults: Floats
    sources: Ints  # the input column of each value column
    code_sources: Ints  # the input column of each code column
    horizon: int  # older than the entity's newest by this: gone
    unit_horizon: int  # older than the unit's newest by this: gone
    labels: int  # 1 when label aggregates are kept
    first_code: int
    first_value: int
    first_monoid: int
    width: int  # of an event row
    entity_width: int
    seed: int  # of the hash tables in memory; nothing that leaves depends on it


@dataclass
class _Table:
    """Rows without doubles, remembered in order of first use."""

    rows: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, *row: int) -> int:
        """The row's number."""
        if row not in self.rows:
            self.rows.append(row)
        return self.rows.index(row)


class _Needs:
    """Collects what the specs need, then lays it out."""

    def __init__(self) -> None:
        self.frames = _Table()
        self.monoids = _Table()
        self.tallies = _Table()
        self.distincts = _Table()
        self.values = _Table()
        self.codes = _Table()

    def want(self, spec: WindowSpec) -> tuple[int, int, int, int]:
        """Note what one spec needs; its output as kind, frame and two table rows."""
        frame = self.frames.add(spec.window_ms, spec.delay_ms)
        if spec.aggregate is Aggregate.SINCE_LAST:
            return OUT_SINCE, frame, 0, 0
        if spec.field == LABEL:
            return self._over_label(spec, frame)
        if spec.field is None:
            return OUT_COUNT, frame, 0, 0
        if spec.aggregate is Aggregate.DISTINCT:
            return _DISTINCT, frame, self.distincts.add(frame, self.codes.add(spec.field)), 0
        return self._over_value(spec.aggregate, frame, self.values.add(spec.field))

    def _over_label(self, spec: WindowSpec, frame: int) -> tuple[int, int, int, int]:
        if spec.aggregate is Aggregate.RATE:
            return OUT_RATIO, frame, self.tallies.add(frame, POSITIVES, 0), _RATIO_OF_ALL
        labelled = self.tallies.add(frame, LABELS, 0)
        if spec.aggregate is Aggregate.COUNT:
            return OUT_TALLY, frame, labelled, labelled
        total = self.tallies.add(frame, LABEL_SUM, 0)
        return OUT_TALLY if spec.aggregate is Aggregate.SUM else OUT_RATIO, frame, total, labelled

    def _over_value(self, aggregate: Aggregate, frame: int, value: int) -> tuple[int, int, int, int]:
        if aggregate in _MONOID:
            return OUT_PLAIN, frame, self.monoids.add(frame, _MONOID[aggregate], value), 0
        if aggregate is Aggregate.STD:
            return OUT_STD, frame, self.monoids.add(frame, VAR, value), 0
        kind = OUT_SUM if aggregate is Aggregate.SUM else OUT_MEAN
        present = self.tallies.add(frame, PRESENT, value)
        return kind, frame, self.monoids.add(frame, SUM, value), present


def compile_plan(
    specs: Sequence[WindowSpec],
    fields: int,
    distinct: int,
    allowed_lateness_ms: int,
    unit_horizon_ms: int | None,
    positive: int,
    seed: int,
) -> Plan:
    """The kernels' tables for these specs; ValueError for a spec that means nothing.

    Without `unit_horizon_ms` an event is kept for twice the entity's horizon, and at least a day longer than it.
    """
    check_specs(specs, fields, distinct)
    needs = _Needs()
    wanted = [needs.want(spec) for spec in specs]
    labels = int(any(spec.field == LABEL for spec in specs))
    horizon = max((s.window_ms + s.delay_ms for s in specs), default=1) + allowed_lateness_ms
    unit_horizon = horizon + max(horizon, _DAY_MS) if unit_horizon_ms is None else unit_horizon_ms
    if allowed_lateness_ms < 0 or unit_horizon < horizon:
        raise ValueError("the lateness is not negative, and the unit's horizon not below the entity's")
    first_code = 1 + 2 * labels
    first_value = first_code + len(needs.codes.rows)
    first_monoid = first_value + len(needs.values.rows)
    monoids, monoid_order, width = _lay_monoids(needs, first_value, first_monoid)
    first_tally = FIRST_FRAME + FRAME * len(needs.frames.rows)
    first_distinct = first_tally + len(needs.tallies.rows)
    tallies = _sorted(
        [
            (frame, kind, positive if kind == POSITIVES else first_value + value, first_tally + at)
            for at, (frame, kind, value) in enumerate(needs.tallies.rows)
        ]
    )
    distincts = _sorted(
        [(f, first_code + c, first_distinct + i) for i, (f, c) in enumerate(needs.distincts.rows)]
    )
    outputs = [_operands(row, monoid_order, first_tally, first_distinct) for row in wanted]
    return Plan(
        frames=_frames(needs.frames.rows, monoids, tallies, distincts),
        monoids=_ints(monoids, 4),
        tallies=_ints(tallies, 4),
        distincts=_ints(distincts, 3),
        outputs=_ints(outputs, 4),
        defaults=np.array([spec.default for spec in specs], np.float64),
        sources=np.array([v for (v,) in needs.values.rows], np.int64),
        code_sources=np.array([c for (c,) in needs.codes.rows], np.int64),
        horizon=horizon,
        unit_horizon=unit_horizon,
        labels=labels,
        first_code=first_code,
        first_value=first_value,
        first_monoid=first_monoid,
        width=width,
        entity_width=first_distinct + len(needs.distincts.rows),
        seed=seed,
    )


def _lay_monoids(
    needs: _Needs, first_value: int, first_monoid: int
) -> tuple[list[tuple[int, ...]], list[int], int]:
    """Monoids sorted by frame with their row columns, where each went, and the width of an event row."""
    order = sorted(range(len(needs.monoids.rows)), key=lambda at: needs.monoids.rows[at][0])
    rows: list[tuple[int, ...]] = []
    column = first_monoid
    for at in order:
        frame, op, value = needs.monoids.rows[at]
        rows.append((frame, op, first_value + value, column))
        column += WIDTH[op]
    return rows, [order.index(at) for at in range(len(order))], column


def _operands(
    row: tuple[int, int, int, int], monoid_order: list[int], first_tally: int, first_distinct: int
) -> tuple[int, int, int, int]:
    kind, frame, a, b = row
    if kind == _DISTINCT:
        return OUT_TALLY, frame, first_distinct + a, first_distinct + a
    place: dict[int, Callable[[], tuple[int, int]]] = {
        OUT_TALLY: lambda: (first_tally + a, first_tally + b),
        OUT_RATIO: lambda: (first_tally + a, b if b == _RATIO_OF_ALL else first_tally + b),
        OUT_SUM: lambda: (monoid_order[a], first_tally + b),
        OUT_MEAN: lambda: (monoid_order[a], first_tally + b),
        OUT_PLAIN: lambda: (monoid_order[a], 0),
        OUT_STD: lambda: (monoid_order[a], 0),
    }
    return (kind, frame, *place.get(kind, lambda: (0, 0))())


def _sorted(rows: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return sorted(rows, key=lambda row: row[0])


def _ints(rows: Sequence[tuple[int, ...]], width: int) -> Ints:
    return np.array(rows, np.int64).reshape(len(rows), width)


def _frames(windows: Sequence[tuple[int, ...]], *tables: Sequence[tuple[int, ...]]) -> Ints:
    """Window and delay of each frame, with its begin and end in the tables, which are sorted by frame."""
    count = len(windows)
    cuts = [np.searchsorted([row[0] for row in rows], np.arange(count + 1)) for rows in tables]
    columns = [side for cut in cuts for side in (cut[:-1], cut[1:])]
    return np.ascontiguousarray(np.column_stack([_ints(windows, 2), *columns]), np.int64)
