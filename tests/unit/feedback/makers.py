"""A small shop and the four logs of one of its partitions, as feedback reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas import platform_schema
from services.feedback.unit import JoinTables, JoinUnit, label_table
from shared.codec.batch import Batch, Column, Strings
from shared.contracts.generated import accepted_schema, features_schema, joined_schema
from shared.contracts.pipeline import Pipeline
from shared.control.records import Record, Records
from shared.runtime.polled import Polled
from shared.runtime.tables import Table, empty_rows
from shared.runtime.unit import DeadLetter, Emission
from shared.topics import ACCEPTED, FEATURES, JOINED, LABELS, PREDICTIONS, PROFILES, SHADOWS, Topic
from tests.unit.contracts import texts

T0 = 1_700_000_000_000
HORIZON, HOLD = 1_000, 500
LABEL = texts.LABEL.replace(
    '"1 if it came back."}',
    '"1 if it came back."},\n'
    '    {"name": "fixed", "type": "boolean", "doc": "Whether it corrects.", "default": false},\n'
    '    {"name": "by", "type": "string", "doc": "Who says so.", "default": ""}',
)
NAMES = ("AT_NIGHT", "SPENT", "RISK")


def shop(missing: str = '"none"', more: str = "", classes: str = "[0, 1]") -> Pipeline:
    """The shop with a horizon of a second, a hold of half of one, corrections and sources."""
    return texts.parse(toml=shop_toml(missing, more, classes), label=LABEL)


def shop_toml(missing: str = '"none"', more: str = "", classes: str = "[0, 1]") -> str:
    """Its declaration."""
    toml = texts.TOML.replace('horizon = "7d"\nmissing = "none"', "@")
    toml = toml.replace(
        "@",
        f'horizon = "1000ms"\nmissing = {missing}\nhold = "500ms"\ncorrection = "fixed"\nsource = "by"',
    )
    toml = toml.replace("classes = [0, 1]", f"classes = {classes}")
    if classes != "[0, 1]":
        start = toml.index("[[model.decision]]")
        toml = toml[:start] + toml[toml.index("[policy.batch]") :]
        toml = toml.replace("positive = 1\n", "")
    return toml.replace("[source]\n", f"{more}\n[source]\n")


def tables(pipeline: Pipeline, ids: Mapping[str, int] | None = None) -> JoinTables:
    """The topics, with schema ids of a registry or made up ones."""

    def table(number: int, topic: Topic, schema: dict[str, Any]) -> Table:
        name = topic.of(pipeline.name)
        return Table.of(name, number if ids is None else ids[name], schema)

    labels, profiles = LABELS.of(pipeline.name), PROFILES.of(pipeline.name)
    return JoinTables(
        table(1, ACCEPTED, accepted_schema(pipeline)),
        table(2, FEATURES, features_schema(pipeline)),
        table(3, PREDICTIONS, platform_schema("prediction")),
        table(4, SHADOWS, platform_schema("prediction")),
        table(5, JOINED, joined_schema(pipeline)),
        label_table(pipeline, 6 if ids is None else ids[labels]),
        Records.of(PROFILES, pipeline.name, ids or {profiles: 7}) if pipeline.loops else None,
    )


@dataclass
class Logs:
    """Records of the four topics, in log order; times are milliseconds after T0."""

    pipeline: Pipeline
    ids: Mapping[str, int] | None = None
    made: JoinTables = field(init=False)
    topics: dict[str, list[bytes]] = field(init=False)
    keys: list[bytes] = field(default_factory=list)
    events: int = 0

    def __post_init__(self) -> None:
        self.made = tables(self.pipeline, self.ids)
        self.topics = {topic: [] for topic in self.made.inputs}

    def unit(self, number: int = 0) -> JoinUnit:
        return JoinUnit(self.pipeline, number, self.made)

    def event(self, ident: str, at: int, *, offset: int | None = None) -> int:
        """An accepted event; its offset on events.v1 comes back."""
        place = self.events if offset is None else offset
        self.events = place + 1
        self._accepted(
            at,
            place,
            "event",
            {"order_id": ident, "order_time": T0 + at, "customer_id": "c", "shop_id": "s", "amount": 1.0},
        )
        return place

    def label(
        self, ident: str, outcome: int, at: int, of: int = 0, fixed: bool = False, by: str = ""
    ) -> None:
        """An accepted label of the event of time `of`."""
        record = {"order_id": ident, "order_time": T0 + of, "customer_id": "c", "shop_id": "s"}
        self._accepted(at, 1_000 + at, "label", {**record, "returned": outcome, "fixed": fixed, "by": by})

    def progress(self, at: int, idle: bool = False) -> None:
        """A word of ingest."""
        self._accepted(at, -1, "progress", {"idle": idle})

    def vector(self, place: int, ident: str, at: int, **changes: Any) -> int:
        """The event's vector; its offset on features.v1 comes back."""
        topic = self.made.features.topic
        columns = {
            "event_id": ident,
            "key": "c",
            "event_time": T0 + at,
            "order_time": T0 + at,
            "source_offset": place,
            "feature_hash": 7_000 + place,
            **{f"features.{name}": place + k / 10 for k, name in enumerate(NAMES)},
            **changes,
        }
        self.topics[topic].append(_encode(self.made.features, columns))
        return len(self.topics[topic]) - 1

    def answer(self, place: int, ident: str, at: int, vector: int, **changes: Any) -> None:
        """The event's prediction, or with role="shadow" a shadow's."""
        columns = {
            "event_id": ident,
            "key": "c",
            "score": 0.25,
            "label": "ship",
            "model_name": "shop",
            "model_version": 3,
            "model_digest": "d3",
            "role": "champion",
            "registry_offset": 9,
            "feature_hash": 7_000 + place,
            "source_offset": place,
            "input_offset": vector,
            "event_time": T0 + at,
            "order_time": T0 + at,
            "predicted_class": 0,
            "probabilities": b"\0",
            "shadows": 0,
            **changes,
        }
        table = self.made.shadows if columns["role"] == "shadow" else self.made.predictions
        self.topics[table.topic].append(_encode(table, columns))

    def whole(self, ident: str, at: int, shadows: Sequence[int] = (), **changes: Any) -> int:
        """An event with its vector and prediction, and shadows of these versions."""
        place = self.event(ident, at)
        vector = self.vector(place, ident, at)
        for version in shadows:
            self.answer(place, ident, at, vector, role="shadow", model_version=version, score=0.5)
        self.answer(place, ident, at, vector, shadows=len(shadows), **changes)
        return place

    def polled(self, topic: str, first: int = 0, end: int | None = None) -> Polled:
        values = self.topics[topic][first:end]
        none = np.zeros(len(values), np.bool_)
        offsets = np.arange(first, first + len(values))
        keys = Strings.of([b"c"] * len(values))
        return Polled(topic, 0, keys, none, Strings.of(values), none, offsets, offsets)

    def all(self) -> list[Polled]:
        return [self.polled(topic) for topic in self.topics if self.topics[topic]]

    def _accepted(self, at: int, place: int, kind: str, record: dict[str, Any]) -> None:
        columns: dict[str, Any] = {"order_time": T0 + at, "source_offset": place, kind: True}
        columns |= {f"{kind}.{name}": value for name, value in record.items()}
        self.topics[self.made.accepted.topic].append(_encode(self.made.accepted, columns))


def _encode(table: Table, columns: dict[str, Any]) -> bytes:
    """One framed record; what is not given is absent or zero."""
    row = empty_rows(table.program, 1)
    for name, value in columns.items():
        before = row[name]
        there = np.array([value is not None])
        if isinstance(before.values, Strings):
            raw = value if isinstance(value, bytes) else (value or "").encode()
            row = row.having(**{name: Column(Strings.of([raw]), there)})
        else:
            row = row.having(**{name: Column(np.array([value or 0], before.values.dtype), there)})
    return table.write(row).to_list()[0]


def values_of(emission: Emission, topic: str) -> list[bytes]:
    """What an emission writes to a topic."""
    return [value for out in emission.outs if out.topic == topic for value in out.values.to_list()]


def profiles(logs: Logs, emission: Emission) -> list[Record]:
    """What an emission writes to profiles.v1."""
    made = logs.made.profiles
    return [] if made is None else [made.decode(value) for value in values_of(emission, made.topic)]


def joined(logs: Logs, emission: Emission) -> Batch:
    """What an emission writes to joined.v1, as columns of the outcome."""
    values = values_of(emission, logs.made.joined.topic)
    if not values:
        return Batch()
    none = np.zeros(len(values), np.bool_)
    offsets = np.arange(len(values))
    rows = logs.made.joined.read(
        Polled(
            logs.made.joined.topic, 0, Strings.of(values), none, Strings.of(values), none, offsets, offsets
        )
    )
    return Batch(
        {n.removeprefix("event."): c for n, c in rows.columns.items() if n.startswith("event.")}
        | {"order_time": rows["order_time"], "unit": rows["unit"]},
        rows.rows,
    )


Row = tuple[str, str, str, int, int, int]


def told(logs: Logs, emission: Emission) -> list[Row]:
    """(kind, event id, role, class, previous class, order time after T0) of each outcome."""
    rows = joined(logs, emission)
    if not rows.rows:
        return []
    kinds = ("LABEL", "MISSING", "LATE", "CORRECTION")
    return [
        (kinds[k], i.decode(), r.decode(), c, p, t - T0)
        for k, i, r, c, p, t in zip(
            rows["kind"].array.tolist(),
            rows["event_id"].strings.to_list(),
            rows["role"].strings.to_list(),
            rows["label_class"].array.tolist(),
            rows["previous_class"].array.tolist(),
            rows["order_time"].array.tolist(),
            strict=True,
        )
    ]


def reasons(letters: Sequence[DeadLetter]) -> list[tuple[str, int]]:
    """(reason, offset on labels.v1) of each letter."""
    return [(letter.reason, letter.offset) for letter in letters]


def words(logs: Logs, unit: JoinUnit) -> list[tuple[int, bool]]:
    """What the unit says of its progress."""
    said = []
    for out in unit.progress():
        none = np.zeros(len(out.values), np.bool_)
        offsets = np.arange(len(out.values))
        rows = logs.made.joined.read(
            Polled("shop.joined.v1", 0, out.values, none, out.values, none, offsets, offsets)
        )
        said += list(
            zip(
                (rows["order_time"].array - T0).tolist(),
                rows["progress.idle"].array.astype(bool).tolist(),
                strict=True,
            )
        )
    return said
