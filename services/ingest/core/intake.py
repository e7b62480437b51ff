"""The door's checks over a whole batch of one topic: bytes in, decoded rows and codes out.

The first check that a row fails names its code; a row that failed is looked at no further and disturbs no
other. The order of the checks is the order of this file.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from services.ingest.core.dedup import identify
from services.ingest.core.envelope import Named, check_headers, name_rows
from services.ingest.core.reasons import (
    AVRO,
    FRAME_MAGIC,
    FRAME_SHORT,
    KEY_MISMATCH,
    KEY_NULL,
    KEY_PARTITION,
    KEY_SIZE,
    LABEL_CLASS,
    NONFINITE,
    OK,
    RULE,
    SCHEMA_INCOMPATIBLE,
    SCHEMA_SUBJECT,
    SCHEMA_UNKNOWN,
    TIME_FUTURE,
    TIME_STALE,
    TOMBSTONE,
    VALUE_SIZE,
)
from services.ingest.core.rows import Chunk, Codes, Good, equal_rows
from services.ingest.core.spec import Classes, Spec
from shared.codec.batch import Batch, Column, Ints, Mask, Strings
from shared.codec.frame import SchemaIds, split_frames
from shared.codec.hashing import partition_of, xxh64_strings
from shared.codec.program import Program
from shared.runtime.merge import LABEL
from shared.runtime.polled import Polled


class Unusable(Enum):
    """Why a schema id gives no decoder."""

    UNKNOWN = SCHEMA_UNKNOWN
    FOREIGN = SCHEMA_SUBJECT
    INCOMPATIBLE = SCHEMA_INCOMPATIBLE


class Schemas(Protocol):
    """What the registry says of a schema id; raises `Retry` while it cannot be asked."""

    def program_for(self, topic: str, schema_id: int) -> Program | Unusable:
        """The decoder from that writer's schema to the pinned one of the topic, or why there is none."""
        ...


@dataclass(slots=True)
class _Rows:
    """Rows still in the running: positions `at` in the batch, their codes, decoded columns and datums."""

    at: Ints
    record: Batch
    datums: Strings

    def keep(self, mask: Mask) -> "_Rows":
        if mask.all():
            return self
        return _Rows(self.at[mask], self.record.take(mask), self.datums.take(mask))


def judge(spec: Spec, schemas: Schemas, polled: Polled, last_order_ms: int, now_ms: int) -> Chunk:
    """Look at every row of `polled`; `last_order_ms` is where the source stood, `now_ms` what the clock says.

    Raises:
        Retry: the registry is away; nothing has happened, give the same rows again.
    """
    codes, named = _outside(spec, polled)
    ids, datums, framed = split_frames(polled.values)
    _mark(codes, framed == 1, FRAME_SHORT)
    _mark(codes, framed == 2, FRAME_MAGIC)
    rows = _decode(spec, schemas, codes, ids, datums)
    rows = _contents(spec, polled, codes, rows, now_ms)
    order = np.where(codes == OK, polled.timestamps, 0)
    np.maximum.accumulate(order, out=order)
    np.maximum(order, last_order_ms, out=order)
    return Chunk(polled, codes, order, _good(spec, rows, named))


def _mark(codes: Codes, mask: Mask, code: int) -> None:
    """Rows of `mask` that no check has failed yet get `code`."""
    if mask.any():
        codes[mask & (codes == OK)] = code


def _outside(spec: Spec, polled: Polled) -> tuple[Codes, Named | None]:
    """What can be said without opening a value."""
    codes = np.zeros(len(polled), np.int16)
    _mark(codes, polled.value_null, TOMBSTONE)
    _mark(codes, polled.values.lengths > spec.limits.max_value_bytes, VALUE_SIZE)
    named = None
    if polled.headers is not None:
        found, named = check_headers(polled.headers, spec.limits)
        for code in np.unique(found[found != OK]).tolist():
            _mark(codes, found == code, code)
    _mark(codes, polled.key_null, KEY_NULL)
    _mark(codes, polled.keys.lengths > spec.limits.max_key_bytes, KEY_SIZE)
    return codes, named


def _decode(spec: Spec, schemas: Schemas, codes: Codes, ids: SchemaIds, datums: Strings) -> _Rows:
    """Decode what is framed, by its schema id; rows come back in their order."""
    open_rows = np.flatnonzero(codes == OK)
    parts = []
    for schema_id in np.unique(ids[open_rows]).tolist():
        at = open_rows[ids[open_rows] == schema_id]
        program = schemas.program_for(spec.topic, schema_id)
        if isinstance(program, Unusable):
            codes[at] = program.value
            continue
        values = datums if at.size == codes.size else datums.take(at)
        decoded = program.decode(values)
        failed = decoded.status != 0
        codes[at[failed]] = AVRO + decoded.status[failed].astype(np.int16)
        parts.append(_Rows(at, decoded.batch, values).keep(~failed))
    return _in_order(parts, datums)


def _in_order(parts: list[_Rows], datums: Strings) -> _Rows:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _Rows(np.empty(0, np.int64), Batch(), datums.take(np.empty(0, np.int64)))
    at = np.concatenate([part.at for part in parts])
    order = np.argsort(at)
    at = at[order]
    return _Rows(at, Batch.concat([part.record for part in parts]).take(order), datums.take(at))


def _contents(spec: Spec, polled: Polled, codes: Codes, rows: _Rows, now_ms: int) -> _Rows:
    """What the decoded values say; gives the rows that pass everything."""
    if not rows.at.size:
        return rows
    whole = rows.at.size == len(polled)
    keys = polled.keys if whole else polled.keys.take(rows.at)
    stamps = polled.timestamps if whole else polled.timestamps[rows.at]
    found = np.zeros(rows.at.size, np.int16)
    if spec.key is not None:
        _mark(found, ~equal_rows(rows.record[spec.key].strings, keys), KEY_MISMATCH)
    _mark(found, partition_of(keys, spec.partitions) != spec.unit, KEY_PARTITION)
    _times(spec, found, rows.record[spec.time].array, stamps, now_ms)
    for column in rows.record.columns.values():
        if not isinstance(column.values, Strings) and column.values.dtype == np.float64:
            _mark(found, ~np.isfinite(column.values) & column.mask(), NONFINITE)
    _rules(spec, found, rows.record)
    if spec.classes is not None:
        _mark(found, ~_of_class(spec.classes, rows.record[spec.classes.field]), LABEL_CLASS)
    codes[rows.at] = found
    return rows.keep(found == OK)


def _times(spec: Spec, codes: Codes, event: Ints, stamp: Ints, now_ms: int) -> None:
    """The record's own timestamp against the clock, and the event's time against the record's."""
    latest = now_ms + spec.max_future_ms
    _mark(codes, stamp > latest, TIME_FUTURE)
    _mark(codes, (stamp <= 0) | (event <= 0), TIME_STALE)
    ahead = event > stamp + spec.max_future_ms
    # An event that is not in the future of the clock shows that its record's timestamp is the wrong one.
    _mark(codes, ahead & (event > latest), TIME_FUTURE)
    _mark(codes, ahead, TIME_STALE)
    if spec.max_age_ms is not None:
        _mark(codes, event < stamp - spec.max_age_ms, TIME_STALE)


def _rules(spec: Spec, codes: Codes, record: Batch) -> None:
    for at, rule in enumerate(spec.rules):
        column = record[rule.field]
        wrong = np.zeros(record.rows, np.bool_)
        if rule.min is not None:
            wrong |= column.array < rule.min
        if rule.max is not None:
            wrong |= column.array > rule.max
        _mark(codes, wrong & column.mask(), RULE + at)


def _of_class(classes: Classes, column: Column) -> Mask:
    if not isinstance(column.values, Strings):
        return np.isin(column.values, classes.numbers) & column.mask()
    known = np.zeros(len(column), np.bool_)
    for text in classes.texts:
        known |= equal_rows(column.values, Strings.repeated(text, len(column)))
    return known & column.mask()


def _good(spec: Spec, rows: _Rows, named: Named | None) -> Good:
    """The rows that passed, with their identity and what they hold."""
    if not rows.at.size:
        none = np.empty(0, np.uint64)
        return Good(Batch(), none, none, none)
    ids, sources = rows.record[spec.id].strings, None
    if named is not None:
        ids, sources = name_rows(ids, named, rows.at.tolist())
    # Of one event there may be several outcomes: which of them stands is decided behind the door.
    first, second = identify(ids, sources, rows.datums if spec.kind == LABEL else None)
    return Good(_without_minus_zero(rows.record), first, second, xxh64_strings(rows.datums))


def _without_minus_zero(record: Batch) -> Batch:
    """-0.0 and 0.0 are one number but two bit patterns: from here on there is only 0.0."""
    changed = {
        name: Column(column.values + 0.0, column.valid)
        for name, column in record.columns.items()
        if not isinstance(column.values, Strings) and column.values.dtype == np.float64
    }
    return Batch({**record.columns, **changed}, record.rows)
