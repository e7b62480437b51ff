"""A pipeline's declaration from a file and the name of its label: everything else is seen from the file.

What is written is for people to edit: it says of each column that it leaves out why.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cli.columns import (
    EPOCH,
    Feature,
    LabelColumn,
    Left,
    TimeColumn,
    avro_name,
    features_of,
    key_column,
    label_column,
    read_table,
    time_column,
    time_of_rows,
)
from shared.contracts.basics import parse_duration
from shared.errors import Refused

ID, TIME, KEY = "event_id", "event_time", "event_key"
INTERVAL_MS = 1_000
LATE_ROWS = 100
"""A label comes so many rows after its event unless somebody says otherwise."""
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What `millrace init --from` was asked for."""

    name: str
    file: Path
    label: str
    time: str | None = None
    key: str | None = None
    labels_after: str | None = None


def files_from(wish: Wish) -> dict[str, str]:
    """event.avsc, label.avsc and pipeline.toml by file name; the same for the same file and wish.

    Raises:
        Refused: the file or one of the named columns cannot serve.
    """
    frame = read_table(wish.file, wish.label)
    label = label_column(frame, wish.label, avro_name(wish.label, {ID, TIME, KEY}))
    at = None if wish.time is None else time_column(frame, wish.time)
    key = None if wish.key is None else key_column(frame, wish.key)
    spoken_for = {wish.label, *([] if at is None else [at.column]), *([] if key is None else [key])}
    features, left = features_of(frame, spoken_for, {ID, TIME, KEY})
    if not features:
        raise Refused(f"{wish.file} has no column to learn from beside {wish.label}; give numbers")
    _refuse_times(at)
    after_ms = _after_ms(at) if wish.labels_after is None else parse_duration(wish.labels_after)
    namespace = f"example.{wish.name.replace('-', '_')}"
    return {
        "event.avsc": _event(namespace, wish.file.name, features),
        "label.avsc": _label(namespace, label),
        "pipeline.toml": _toml(wish, label, at, key, features, left, after_ms),
    }


def duration(milliseconds: int) -> str:
    """A duration as declarations write it.

    >>> [duration(ms) for ms in (90_000, 86_400_000, 1_500, 0)]
    ['90s', '1d', '1500ms', '0ms']
    """
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _after_ms(at: TimeColumn | None) -> int:
    return LATE_ROWS * INTERVAL_MS if at is None else time_of_rows(at.moments, LATE_ROWS)


def _refuse_times(at: TimeColumn | None) -> None:
    """Refused where a row could not be sent: a record has no time before 1970, and none that is still to come."""
    if at is None:
        return
    first, last = at.moments.arg_min() or 0, at.moments.arg_max() or 0
    if at.moments[first] <= 0:
        raise Refused(
            f"--time {at.column}: row {first} stands before 1970; leave out --time and rows are numbered"
        )
    if at.moments[last] > time.time() * 1_000:
        raise Refused(
            f"--time {at.column}: row {last} goes beyond today; leave out --time and rows are numbered"
        )


def _event(namespace: str, file: str, features: list[Feature]) -> str:
    fields = [*_common("The row's number.", "Keys the topic.")]
    for each in features:
        avro: Any = "double" if each.kind == "number" else "boolean"
        said: dict[str, Any] = {"name": each.field, "type": avro, "doc": f"Column {each.column}."}
        if each.nullable:
            said |= {"type": ["null", avro], "default": None}
        fields.append(said)
    return _avsc(namespace, "Row", f"A row of {file}.", fields)


def _label(namespace: str, label: LabelColumn) -> str:
    outcome = {"name": label.field, "type": label.avro, "doc": f"Column {label.column}."}
    fields = [*_common("The row's number.", "The event's key."), outcome]
    return _avsc(namespace, "Outcome", "What came of an event.", fields)


def _common(of_id: str, of_key: str) -> list[dict[str, Any]]:
    instant = {"type": "long", "logicalType": "timestamp-millis"}
    return [
        {"name": ID, "type": "string", "doc": of_id},
        {"name": TIME, "type": instant, "doc": "When it happened, in UTC."},
        {"name": KEY, "type": "string", "doc": of_key},
    ]


def _avsc(namespace: str, name: str, doc: str, fields: list[dict[str, Any]]) -> str:
    record = {"type": "record", "name": name, "namespace": namespace, "doc": doc, "fields": fields}
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _toml(
    wish: Wish,
    label: LabelColumn,
    at: TimeColumn | None,
    key: str | None,
    features: list[Feature],
    left: list[Left],
    after_ms: int,
) -> str:
    parts = [
        f"# Written from {_plain(wish.file.name)}; change what you like, then: millrace schemas check {wish.name}",
        _table("pipeline", name=wish.name, partitions=PARTITIONS, order="event", allowed_lateness="1h"),
        _table("event", id=ID, time=TIME, key=KEY, max_future="5m", dedup_horizon="1d"),
        _table(
            "label",
            id=ID,
            time=TIME,
            field=label.field,
            classes=list(label.classes),
            positive=label.positive,
            horizon=duration(2 * after_ms or 1_000),
            missing="none",
        )
        + _silent(label),
        _table("[entity]", name="row" if key is None else "subject", key=KEY),
        *(
            ["\n".join(f"# Left out: column {_plain(each.column)}, {each.reason}." for each in left)]
            if left
            else []
        ),
        *(_feature(each) for each in features),
        _table("model", name=wish.name, architecture="linear"),
        *_decisions(label),
        "# The loop: when a model is trained; the rest of [policy] has its defaults.\n"
        + _table("policy.retrain"),
        _source(at, after_ms),
        _table("source.event", **_cells(key, features)),
        _table("source.label", **{label.field: label.column}),
    ]
    return "\n\n".join(parts) + "\n"


def _silent(label: LabelColumn) -> str:
    return (
        f"\n# Column {_plain(label.column)} holds no outcome in {_plain(label.unknown)}."
        if label.unknown
        else ""
    )


def _feature(each: Feature) -> str:
    if not each.nullable:
        return _table("[feature]", name=each.field, expression=each.field)
    filled = f"where(is_null({each.field}), {each.usual!r}, {each.field})"
    text = _table("[feature]", name=each.field, expression=filled)
    if each.absent:
        absent = _table("[feature]", name=each.absent, expression=f"is_null({each.field})")
        text += f"\n\n{absent}"
    return text


def _decisions(label: LabelColumn) -> list[str]:
    """Two classes are told apart at one half; of more the likeliest is the answer."""
    if len(label.classes) > 2:
        return []
    other = next(each for each in label.classes if each != label.positive)
    return [
        _table("[model.decision]", label=_text(other), **{"from": 0.0}),
        _table("[model.decision]", label=_text(label.positive), **{"from": 0.5}),
    ]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _source(at: TimeColumn | None, after_ms: int) -> str:
    after = duration(after_ms)
    if at is None:
        head = "# Rows have no time of their own: they are numbered.\n"
        return head + _table("source", epoch=EPOCH, interval=duration(INTERVAL_MS), labels_after=after)
    epoch = {} if at.epoch is None else {"epoch": at.epoch}
    return _table("source", time=at.column, time_unit=at.unit, **epoch, labels_after=after)


def _cells(key: str | None, features: list[Feature]) -> dict[str, str]:
    # Without a key each row is its own: rows spread over all partitions, and one order by time holds over them.
    return {ID: "#", KEY: "#" if key is None else key, **{each.field: each.column for each in features}}


def _table(title: str, /, **values: object) -> str:
    head = f"[{title}]"
    return "\n".join([head, *(f"{key} = {_toml_value(value)}" for key, value in values.items())])


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(each) for each in value) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, but for the one control character that JSON lets stand."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain(text: str) -> str:
    """A text that may stand in a comment."""
    return "".join(each if each.isprintable() else "?" for each in text)
