"""Exact event-time windows of one entity in one unit: rows in merged order in, feature vectors out."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.features.core import image
from services.features.core.plan import BEGIN, END, LIVE, Plan, compile_plan
from services.features.core.pool import (
    ATTACHED,
    DUPLICATES,
    LATE,
    NEED,
    NEVER,
    STATE,
    TOO_LATE,
    UNIT_NEWEST,
    USED,
    Pool,
)
from services.features.core.room import rebuild, sweep
from services.features.core.rows import DONE, NEEDS_CODES, NEEDS_HELD, NEEDS_ROWS, fold_rows
from services.features.core.spec import WindowSpec
from services.features.core.tables import LEAST, ROW, grown, rehash
from services.features.core.tallies import NONE
from shared.codec.batch import Bytes, Column, Floats, Ints, Strings, frozen
from shared.codec.hashing import xxh64_strings
from shared.codec.interner import Interner

EVENT, LABEL_ROW = 0, 1
_LEAST_ROWS = 1024
_LARGEST_LABEL = 2**31


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What was folded so far, the same however the rows were cut into batches."""

    late: int  # events older than their entity's newest, in time for their windows
    too_late: int  # events that were gone when they came: every feature is its default
    labels_attached: int
    labels_duplicate: int  # labels of events that had one, or had one waiting
    labels_expired: int  # labels whose event was gone, or did not come in time
    labels_waiting: int
    entities: int  # with an event or a waiting label that is not gone
    events: int  # that are not gone


class EntityWindows:
    """The window features of one entity kind, for the entities of one unit.

    An event at time t of an entity sees, in a window of width w and delay d, the entity's events with time in
    (t - d - w, t - d] up to and including itself in merged order. Events up to the newest time of the entity
    less its horizon (the widest window with its delay, plus the allowed lateness), or up to the newest time of
    the unit less the unit's horizon, are gone. Labels count once they have come. See docs/features.md.

    >>> from services.features.core.spec import Aggregate
    >>> specs = [WindowSpec(Aggregate.MEAN, 0, window_ms=1000)]
    >>> windows = EntityWindows(specs, fields=1)
    >>> cards, ids = Strings.of([b"a", b"a", b"b"]), Strings.of([b"1", b"2", b"3"])
    >>> windows.step(np.zeros(3, np.uint8), cards, np.array([0, 999, 1500]), ids, np.array([[1.0], [2.0], [7.0]]))
    array([[1. ],
           [1.5],
           [7. ]])
    """

    def __init__(
        self,
        specs: Sequence[WindowSpec],
        fields: int,
        allowed_lateness_ms: int = 0,
        distinct_fields: int = 0,
        unit_horizon_ms: int | None = None,
        positive: int = 1,
    ) -> None:
        self._specs = tuple(specs)
        self._fields = fields
        self._distinct_fields = distinct_fields
        seed = secrets.randbits(62)
        self._plan: Plan = compile_plan(
            specs, fields, distinct_fields, allowed_lateness_ms, unit_horizon_ms, positive, seed
        )
        self._keys, self._pool = Interner(), _empty_pool(self._plan)

    def step(
        self,
        kind: Bytes,
        entity: Strings,
        time: Ints,
        ident: Strings,
        values: Floats,
        distinct: Sequence[Column] = (),
        label: Floats | None = None,
    ) -> Floats:
        """Fold n rows; the features of the event rows, in row order, as float64 [events, specs].

        `kind` is 0 for an event and 1 for a label; `time` is the event's time (of a label: its event's) in ms,
        `ident` the event's id. `values` is float64 [n, fields], NaN for null; `distinct` has one column a
        distinct field; `label` is a whole number for each label row. ValueError when shapes or labels are wrong.
        """
        if values.shape != (kind.size, self._fields) or len(distinct) != self._distinct_fields:
            raise ValueError(
                f"values are {values.shape} and {len(distinct)} distinct columns; "
                f"this takes ({kind.size}, {self._fields}) and {self._distinct_fields}"
            )
        events = kind == EVENT
        count = int(np.count_nonzero(events))
        if not self._plan.labels and count < kind.size:
            kind, entity, time, values = kind[events], entity.take(events), time[events], values[events]
            ident, distinct, label = ident.take(events), [c.take(events) for c in distinct], None
        out = np.empty((count, len(self._specs)), np.float64)
        ident_hash = xxh64_strings(ident).view(np.int64) if self._plan.labels else time
        self._fold(
            frozen(kind, np.uint8),
            frozen(self._numbers(entity), np.int64),
            frozen(time, np.int64),
            frozen(ident_hash, np.int64),
            frozen(_codes(distinct, kind.size), np.int64),
            frozen(values, np.float64),
            frozen(_labels(label, kind), np.int64),
            out,
        )
        sweep(self._plan, self._pool, len(self._keys), 2 * kind.size)
        self._compact()
        return out

    def counts(self) -> WindowCounts:
        """What was folded and what is held, as the rows alone decide it."""
        state = self._pool.state
        live = image.live(self._plan, self._pool, len(self._keys))
        return WindowCounts(
            late=int(state[LATE]),
            too_late=int(state[TOO_LATE]),
            labels_attached=int(state[ATTACHED]),
            labels_duplicate=int(state[DUPLICATES]),
            labels_expired=live.expired,
            labels_waiting=len(live.held),
            entities=live.entities,
            events=int(live.counts.sum()),
        )

    def nbytes(self) -> int:
        """Bytes of memory held, without the entities' keys."""
        return sum(
            part.nbytes for part in (self._pool.rows, self._pool.entities, self._pool.codes, self._pool.held)
        )

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """All state as plain arrays; `restore` of them goes on bit-equal."""
        return image.save(self._plan, self._specs, self._pool, self._keys)

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Hold exactly the state of a snapshot; ValueError when it was made for other specs."""
        keys = Interner()
        self._pool = image.load(self._plan, self._specs, arrays, keys)
        self._keys = keys

    def digest(self) -> str:
        """SHA-256 (hex) of what the rows folded so far decide, and nothing else."""
        return image.digest(self._plan, self._specs, self._pool, self._keys)

    def _numbers(self, entity: Strings) -> Ints:
        """The entities' numbers, with a row of the entity table for each."""
        numbers = self._keys.intern(entity)
        have = self._pool.entities.shape[0]
        if len(self._keys) > have:
            entities = np.zeros((max(2 * have, len(self._keys)), self._plan.entity_width), np.int64)
            entities[:have] = self._pool.entities
            self._pool = self._pool._replace(entities=entities)
        return numbers

    def _fold(self, kind: Bytes, *columns: npt.NDArray[Any]) -> None:
        row, written, stop = fold_rows(self._plan, self._pool, 0, 0, kind, *columns)
        while stop != DONE:
            self._make_room(stop)
            row, written, stop = fold_rows(self._plan, self._pool, row, written, kind, *columns)

    def _make_room(self, stop: int) -> None:
        need = int(self._pool.state[NEED])
        if stop == NEEDS_ROWS:
            self._rebuild(need)
        elif stop == NEEDS_CODES:
            self._pool = self._pool._replace(codes=grown(self._pool.codes, self._plan.seed, 2 * need))
        elif stop == NEEDS_HELD:
            self._pool = self._pool._replace(held=grown(self._pool.held, self._plan.seed, 2 * need))

    def _rebuild(self, need: int) -> None:
        """Move all rows that are not gone into a new arena with room for `need` more."""
        used = self._pool.entities[: len(self._keys)]
        sizes = (used[:, END] - used[:, BEGIN])[used[:, LIVE] == 1]
        wanted = need + int((sizes + (sizes >> 1)).sum())
        rows = image.arena(max(_LEAST_ROWS, wanted + (wanted >> 1)), self._plan.width)
        rebuild(self._plan, self._pool, len(self._keys), rows)
        self._pool = self._pool._replace(rows=rows, values=rows.view(np.float64))

    def _compact(self) -> None:
        """Forget the keys of entities out of use once they are the most."""
        slots = len(self._keys)
        if slots < 2 * int(self._pool.state[USED]) + _LEAST_ROWS:
            return
        kept = np.flatnonzero(self._pool.entities[:slots, LIVE])
        self._keys.keep(kept)
        entities = np.zeros((max(64, 2 * kept.size), self._plan.entity_width), np.int64)
        entities[: kept.size] = self._pool.entities[kept]
        place = np.full(slots, -1, np.int64)
        place[kept] = np.arange(kept.size)
        codes = _renumbered(self._pool.codes, place, max(1, self._plan.distincts.shape[0]), self._plan.seed)
        held = _renumbered(self._pool.held, place, 1, self._plan.seed)
        self._pool = self._pool._replace(entities=entities, codes=codes, held=held)


def _empty_pool(plan: Plan) -> Pool:
    rows = image.arena(_LEAST_ROWS, plan.width)
    state = np.zeros(STATE, np.int64)
    state[UNIT_NEWEST] = NEVER
    return Pool(
        rows=rows,
        values=rows.view(np.float64),
        entities=np.zeros((64, plan.entity_width), np.int64),
        codes=np.zeros((LEAST, ROW), np.int64),
        held=np.zeros((LEAST, ROW), np.int64),
        state=state,
    )


def _renumbered(table: Ints, place: Ints, each: int, seed: int) -> Ints:
    """A table whose first key word is entity * each + rest + 1, for new numbers of the entities."""
    used = table[:, 0] != 0
    moved = table[used]
    key = moved[:, 0] - 1
    moved[:, 0] = place[key // each] * each + key % each + 1
    size = max(LEAST, 1 << (4 * moved.shape[0]).bit_length())
    new = np.zeros((size, ROW), np.int64)
    rehash(moved, seed, new)
    return new


def _codes(columns: Sequence[Column], rows: int) -> Ints:
    """The distinct columns as int64 codes [rows, columns]: equal for equal values, NONE for null."""
    codes = np.empty((rows, len(columns)), np.int64)
    for at, column in enumerate(columns):
        valid = column.valid
        if isinstance(column.values, Strings):
            code = xxh64_strings(column.strings).view(np.int64)
        elif column.array.dtype.kind == "f":
            values = column.array.astype(np.float64) + 0.0
            valid = column.mask() & ~np.isnan(values)
            code = values.view(np.int64)
        else:
            code = column.array.astype(np.int64)
        codes[:, at] = np.where(code == NONE, NONE + 1, code)
        if valid is not None:
            codes[~valid, at] = NONE
    return codes


def _labels(label: Floats | None, kind: Bytes) -> Ints:
    """The labels as whole numbers; 0 for events."""
    if label is None:
        if (kind == LABEL_ROW).any():
            raise ValueError("there are label rows but no labels")
        return np.zeros(kind.size, np.int64)
    given = np.where(kind == LABEL_ROW, label, 0.0)
    if not (np.isfinite(given) & (given == np.floor(given)) & (np.abs(given) < _LARGEST_LABEL)).all():
        raise ValueError("a label is a whole number below 2**31")
    return given.astype(np.int64)
