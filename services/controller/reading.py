"""Rows of the controller's inputs as values; what cannot be one is a dead letter or not for us."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.controller.core.records import (
    ACCEPTED,
    GIVEN_UP,
    Command,
    Score,
    Word,
    object_of,
    parameters_of,
    problem_of,
)
from services.controller.core.state import OWN_KINDS, Entry
from shared.codec.batch import Batch, Column, Strings
from shared.codec.frame import split_frames
from shared.codec.program import STATUS_REASONS
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.runtime.unit import DeadLetter

_WORKERS = GIVEN_UP | {ACCEPTED}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """A row with its place; `row` is None where the record is none of the topic's schema, and `why` says so."""

    at: int
    offset: int
    timestamp: int
    row: Row | None
    why: str = ""


def _plain(column: Column) -> list[Any]:
    """Python values, texts and bytes as bytes."""
    if isinstance(column.values, Strings):
        return column.values.to_list()
    values: list[Any] = column.values.tolist()
    return values


def rows_of(table: Table, polled: Polled) -> Iterator[Read]:
    """Every row in order, decoded one batch at a time."""
    ids, payload, status = split_frames(polled.values)
    decoded = table.program.decode(payload)
    wrong = (status != 0) | (ids != table.schema_id) | (decoded.status != 0) | polled.value_null
    good = np.flatnonzero(~wrong)
    whole = dict(zip(good.tolist(), _values(decoded.batch, good), strict=True))
    for at in range(len(polled)):
        offset, timestamp = int(polled.offsets[at]), int(polled.timestamps[at])
        why = "" if at in whole else _why(polled, ids, table, int(decoded.status[at]), at)
        yield Read(at, offset, timestamp, whole.get(at), why)


def _values(batch: Batch, good: npt.NDArray[np.int64]) -> list[Row]:
    taken = batch.take(good)
    columns = {name: _plain(column) for name, column in taken.columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _why(polled: Polled, ids: npt.NDArray[Any], table: Table, status: int, at: int) -> str:
    if polled.value_null[at]:
        return "a tombstone"
    if ids[at] != table.schema_id:
        return f"not framed with schema {table.schema_id}"
    return STATUS_REASONS[status]


def _text(row: Row, *names: str) -> dict[str, str]:
    return {name: row[name].decode("utf-8", "replace") for name in names}


def command_of(polled: Polled, read: Read) -> Command | DeadLetter:
    """A command that can be obeyed or refused, or the dead letter of what is none."""
    if read.row is None:
        return letter(polled, read, "command.broken", read.why)
    row = read.row
    texts = _text(row, "id", "kind", "model_name", "model_digest", "actor", "reason", "parameters")
    parameters = texts.pop("parameters")
    command = Command(
        **texts,
        model_version=row["model_version"],
        expected_sequence=row["expected_sequence"],
        evidence=row["evidence"],
        parameters=parameters_of(parameters) or {},
        offset=read.offset,
        at=read.timestamp,
    )
    problem = problem_of(command, parameters)
    return command if problem is None else letter(polled, read, *problem)


def letter(polled: Polled, read: Read, reason: str, message: str) -> DeadLetter:
    """The record, whole, with why."""
    at = np.array([read.at])
    return DeadLetter(
        reason=reason,
        message=message,
        topic=polled.topic,
        partition=polled.partition,
        offset=read.offset,
        timestamp=read.timestamp,
        key=None if polled.key_null[read.at] else polled.keys.take(at).to_list()[0],
        value=None if polled.value_null[read.at] else polled.values.take(at).compact().to_list()[0],
    )


def score_of(read: Read) -> Score | None:
    """A figure; None for what is none."""
    if read.row is None:
        return None
    row = read.row
    return Score(
        sequence=row["sequence"],
        order_time=row["order_time"],
        version=row["model_version"],
        value=row["value"],
        rows=row["rows"],
        total=row["total"],
        at=read.timestamp,
        **_text(row, "role", "slice", "metric", "window", "state"),
    )


def word_of(read: Read, model: str) -> Word | None:
    """A worker's word on a version of `model`; None for the controller's own records and everything else."""
    if read.row is None:
        return None
    texts = _text(read.row, "kind", "model_name", "model_digest", "actor", "reason", "detail")
    if texts["kind"] not in _WORKERS or texts["model_name"] != model:
        return None
    return Word(
        texts["kind"],
        read.row["model_version"],
        texts["model_digest"],
        texts["actor"],
        texts["reason"],
        texts["detail"],
        read.timestamp,
    )


def entry_of(read: Read, model: str) -> Entry | None:
    """One of the controller's own decisions; None for everything else. ValueError where its detail is broken."""
    if read.row is None:
        return None
    row = read.row
    names = (
        "kind",
        "model_name",
        "model_digest",
        "previous",
        "state",
        "actor",
        "reason",
        "evidence",
        "detail",
    )
    texts = _text(row, *names)
    if texts["kind"] not in OWN_KINDS or texts["model_name"] != model:
        return None
    detail = object_of(texts["detail"])
    if detail is None:
        raise ValueError(f"the detail of audit record {read.offset} is no JSON object")
    return Entry(
        kind=texts["kind"],
        version=row["model_version"],
        digest=texts["model_digest"],
        previous=texts["previous"],
        state=texts["state"],
        actor=texts["actor"],
        reason=texts["reason"],
        at=row["at"],
        evidence=texts["evidence"],
        labeled_sequence=row["labeled_sequence"],
        command_offset=row["command_offset"],
        detail=detail,
    )
