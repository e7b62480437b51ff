"""Records as producers send them, and a unit to read them: fraud with one partition unless told otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import schemas
from services.ingest.core.intake import Unusable
from services.ingest.core.spec import Limits
from services.ingest.unit import IngestUnit
from shared.codec.batch import Batch, Column, Strings
from shared.codec.frame import frame_prefix, split_frames
from shared.codec.program import Program, compile_program
from shared.contracts.generated import accepted_schema
from shared.contracts.pipeline import Pipeline, load_pipeline
from shared.errors import Retry
from shared.runtime.control import Replays
from shared.runtime.polled import Headers, Polled
from shared.runtime.tables import Table
from shared.runtime.unit import Emission

EVENTS, LABELS = "fraud.events.v1", "fraud.labels.v1"
NOW = 1_760_000_000_000
EVENT_ID, LABEL_ID, ACCEPTED_ID = 1, 2, 3

FRAUD = load_pipeline(schemas.FOLDER / "fraud").model_copy(update={"partitions": 1})
EVENT = compile_program(FRAUD.event.avro)
assert FRAUD.label is not None
LABEL = compile_program(FRAUD.label.avro)


def fraud(order: str = "event", partitions: int = 1, **event: Any) -> Pipeline:
    """The fraud pipeline with some of its [event] table changed."""
    changed = FRAUD.event.model_copy(update=event)
    return FRAUD.model_copy(update={"event": changed, "order": order, "partitions": partitions})


@dataclass
class FakeSchemas:
    """Id 1 is the event's, 2 the label's; 4 cannot be resolved; `away` makes every question fail."""

    away: bool = False

    def program_for(self, topic: str, schema_id: int) -> Program | Unusable:
        """The decoder of the topic's own id."""
        if self.away:
            raise Retry("the registry is away")
        if schema_id == 4:
            return Unusable.INCOMPATIBLE
        if schema_id not in (EVENT_ID, LABEL_ID):
            return Unusable.UNKNOWN
        own = EVENT_ID if topic == EVENTS else LABEL_ID
        if schema_id != own:
            return Unusable.FOREIGN
        return EVENT if topic == EVENTS else LABEL


@dataclass(frozen=True)
class Row:
    """One record as it lies on a topic."""

    value: bytes | None
    key: bytes | None = b"c1"
    stamp: int = NOW
    headers: Headers | None = None


def datum(**fields: Any) -> bytes:
    """An event's datum, or a label's where tx_fraud is given."""
    given = {"transaction_id": "t1", "tx_time": NOW, "customer_id": "c1", "terminal_id": "x", **fields}
    program = LABEL if "tx_fraud" in given else EVENT
    if program is EVENT:
        given.setdefault("tx_amount", 10.0)
    columns = {}
    for name, value in given.items():
        text = isinstance(value, str)
        columns[name] = Column(Strings.of([value.encode()]) if text else np.array([value]))
    return program.encode(Batch(columns, 1)).to_list()[0]


def event(stamp: int = NOW, key: bytes | None = None, headers: Headers | None = None, **fields: Any) -> Row:
    """A framed event; its time and key are the record's own unless given."""
    fields.setdefault("tx_time", stamp)
    own = str(fields.get("customer_id", "c1")).encode() if key is None else key
    return Row(frame_prefix(EVENT_ID) + datum(**fields), own, stamp, headers)


def label(stamp: int = NOW, headers: Headers | None = None, **fields: Any) -> Row:
    """A framed label."""
    fields.setdefault("tx_time", stamp)
    fields.setdefault("tx_fraud", 0)
    own = str(fields.get("customer_id", "c1")).encode()
    return Row(frame_prefix(LABEL_ID) + datum(**fields), own, stamp, headers)


def polled(topic: str, rows: Sequence[Row], start: int = 0, partition: int = 0) -> Polled:
    """Rows as one poll gives them, from offset `start` on."""
    headers = [row.headers for row in rows]
    return Polled(
        topic,
        partition,
        Strings.of([row.key or b"" for row in rows]),
        np.array([row.key is None for row in rows], np.bool_),
        Strings.of([row.value or b"" for row in rows]),
        np.array([row.value is None for row in rows], np.bool_),
        start + np.arange(len(rows), dtype=np.int64),
        np.array([row.stamp for row in rows], np.int64),
        headers if any(h is not None for h in headers) else None,
    )


def table(pipeline: Pipeline = FRAUD) -> Table:
    """accepted.v1."""
    return Table.of("fraud.accepted.v1", ACCEPTED_ID, accepted_schema(pipeline))


TABLE = table()


def unit(
    pipeline: Pipeline = FRAUD,
    number: int = 0,
    schemas_: FakeSchemas | None = None,
    replays: Replays | None = None,
    limits: Limits | None = None,
) -> IngestUnit:
    """A unit at its beginning."""
    return IngestUnit(
        pipeline, number, schemas_ or FakeSchemas(), TABLE, replays or Replays(), limits or Limits(), NOW
    )


@dataclass
class Heard:
    """All that a unit has said so far."""

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    dead: list[tuple[str, int]] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    late: int = 0

    def hear(self, emission: Emission) -> "Heard":
        """Take in one step's word."""
        for out in emission.outs:
            assert out.keys is not None
            assert out.partitions is not None
            self.values += out.values.to_list()
            self.keys += out.keys.to_list()
        self.reasons += [letter.reason for letter in emission.dead]
        self.dead += [(letter.topic, letter.offset) for letter in emission.dead]
        self.offsets |= emission.next_offsets
        self.late += emission.late
        return self

    def rows(self) -> list[dict[str, Any]]:
        """What was accepted: kind, id, order time, lateness and offset."""
        return read_accepted(self.values)


def read_accepted(values: Sequence[bytes]) -> list[dict[str, Any]]:
    """Accepted records as dicts, by the columns that the tests look at."""
    _, payload, status = split_frames(Strings.of(list(values)))
    decoded = TABLE.program.decode(payload)
    assert not status.any()
    assert not decoded.status.any()
    batch = decoded.batch
    ids = {name: batch[f"{name}.transaction_id"].strings.to_list() for name in ("event", "label")}
    found = []
    for row in range(batch.rows):
        kind = "event" if batch["event"].array[row] else "label"
        found.append(
            {
                "kind": kind,
                "id": ids[kind][row].decode(),
                "order_time": int(batch["order_time"].array[row]),
                "late": bool(batch["late"].array[row]),
                "offset": int(batch["source_offset"].array[row]),
                "unit": int(batch["unit"].array[row]),
                "amount": float(batch["event.tx_amount"].array[row]),
            }
        )
    return found


def idle(made: IngestUnit, now_ms: int = NOW) -> Heard:
    """Let both sources fall silent at their ends, so that everything held is released."""
    heard = Heard()
    for topic in (EVENTS, LABELS):
        made.at_end(topic, True)
    for wait_ms in (0, 25, 2_500):
        heard.hear(made.step([], now_ms + wait_ms))
    return heard


def feed(
    made: IngestUnit, events: Sequence[Row] = (), labels: Sequence[Row] = (), now_ms: int = NOW
) -> Heard:
    """Give one poll of each topic, then let both fall silent; everything that was said."""
    parts = [polled(topic, rows) for topic, rows in ((EVENTS, events), (LABELS, labels)) if rows]
    heard = Heard().hear(made.step(parts, now_ms))
    after = idle(made, now_ms)
    heard.values += after.values
    heard.keys += after.keys
    heard.reasons += after.reasons
    heard.dead += after.dead
    heard.offsets |= after.offsets
    heard.late += after.late
    return heard
