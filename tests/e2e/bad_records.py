"""Hostile records as a table: what is sent, and what must become of it.

The pipeline is the one declared in `hostile/`. A case makes the records of one purchase; every record has the
reason of its dead letter, or none where it must be let through. Numbers are those of the list in
docs/bad-inputs.md.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from shared.codec.batch import Strings
from shared.codec.frame import frame_prefix
from shared.codec.hashing import partition_of

PARTITIONS = 4
YEAR_MS = 365 * 86_400_000
Headers = list[tuple[str, bytes | None]]


def long_bytes(number: int) -> bytes:
    """A zigzag varint, of any size."""
    left = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def text_bytes(text: str | bytes) -> bytes:
    """A length and so many bytes."""
    raw = text.encode() if isinstance(text, str) else text
    return long_bytes(len(raw)) + raw


def double_bytes(number: float) -> bytes:
    """Eight bytes, little-endian."""
    return struct.pack("<d", number)


@dataclass(frozen=True, slots=True)
class Record:
    """One record for events.v1 or labels.v1; `reason` of its dead letter, "" where it is let through.

    A repeat is let through and dropped behind the door: `predicted` says whether an answer follows.
    """

    value: bytes | None
    key: bytes | None
    timestamp_ms: int
    reason: str
    topic: str = "events.v1"
    partition: int | None = None
    headers: Headers = field(default_factory=list)
    predicted: bool = False


@dataclass(frozen=True, slots=True)
class Ids:
    """Registered schema ids by topic without the pipeline's name."""

    events: int
    labels: int
    dlq: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """A good purchase, and the ways to spoil it."""

    id: str
    at_ms: int
    customer: str
    shop: str
    ids: Ids

    def datum(self, **spoiled: bytes) -> bytes:
        """The event's bytes without the frame; `spoiled` fields are given as bytes."""
        parts = {
            "purchase_id": text_bytes(self.id),
            "at": long_bytes(self.at_ms),
            "customer": text_bytes(self.customer),
            "shop": text_bytes(self.shop),
            "amount": double_bytes(20.0 + len(self.customer)),
            "items": long_bytes(3),
            "gift": b"\1",
            "channel": long_bytes(1),
            "note": long_bytes(1) + text_bytes("thanks"),
        }
        return b"".join((parts | spoiled).values())

    def value(self, **spoiled: bytes) -> bytes:
        """The framed event."""
        return frame_prefix(self.ids.events) + self.datum(**spoiled)

    def complaint(self, **spoiled: bytes) -> bytes:
        """The framed label."""
        parts = {
            "purchase_id": text_bytes(self.id),
            "at": long_bytes(self.at_ms),
            "customer": text_bytes(self.customer),
            "shop": text_bytes(self.shop),
            "complained": long_bytes(1),
        }
        return frame_prefix(self.ids.labels) + b"".join((parts | spoiled).values())

    def good(self, **spoiled: bytes) -> Record:
        """The record of an event that is answered."""
        return Record(self.value(**spoiled), self.customer.encode(), self.at_ms, "", predicted=True)

    def bad(self, reason: str, value: bytes | None) -> Record:
        """A record of this purchase's key with another value."""
        return Record(value, self.customer.encode(), self.at_ms, reason)

    def spoiled(self, reason: str, **fields: bytes) -> Record:
        """A record with some fields' bytes changed."""
        return self.bad(reason, self.value(**fields))


def home_of(key: str) -> int:
    """The partition on which a key belongs."""
    return int(partition_of(Strings.of([key.encode()]), PARTITIONS)[0])


def _elsewhere(purchase: Purchase) -> int:
    return (home_of(purchase.customer) + 1) % PARTITIONS


def _conflict(purchase: Purchase) -> list[Record]:
    return [purchase.good(), purchase.spoiled("id.conflict", items=long_bytes(4))]


def _repeat(purchase: Purchase) -> list[Record]:
    first = purchase.good()
    return [first, replace(first, predicted=False), replace(first, predicted=False)]


def _other_id_in_header(purchase: Purchase) -> list[Record]:
    """The header names another schema; only the frame counts, for good and for bad."""
    header: Headers = [("__value_schema_id", b"\0" + purchase.ids.dlq.to_bytes(4, "big"))]
    honest: Headers = [("__value_schema_id", b"\0" + purchase.ids.events.to_bytes(4, "big"))]
    unknown = frame_prefix(2**31 - 2) + purchase.datum()
    return [
        replace(purchase.good(), headers=header),
        replace(purchase.bad("schema.unknown", unknown), headers=honest),
    ]


def _at(purchase: Purchase, reason: str, timestamp_ms: int) -> Record:
    return replace(purchase.spoiled(reason), timestamp_ms=timestamp_ms)


def _label(purchase: Purchase, reason: str, value: bytes | None) -> Record:
    return replace(purchase.bad(reason, value), topic="labels.v1")


Make = Callable[[Purchase], Record | list[Record]]
NAN, INFINITY = float("nan"), float("inf")

CASES: Mapping[str, Make] = {
    "1 an empty value": lambda p: p.bad("frame.short", b""),
    "2 one byte": lambda p: p.bad("frame.short", b"\0"),
    "2 five bytes": lambda p: p.bad("frame.short", frame_prefix(p.ids.events)),
    "3 a null value": lambda p: p.bad("tombstone.unexpected", None),
    "3 a null label": lambda p: _label(p, "tombstone.unexpected", None),
    "4 magic byte 5": lambda p: p.bad("frame.magic", b"\5" + p.value()[1:]),
    "5 magic byte 1, a short guid": lambda p: p.bad("frame.magic", b"\1" + bytes(9)),
    "6 JSON": lambda p: p.bad("frame.magic", json.dumps({"purchase_id": p.id}).encode()),
    "6 text": lambda p: p.bad("frame.magic", "schöne Grüße".encode()),
    "7 an unknown schema id": lambda p: p.bad("schema.unknown", frame_prefix(2**31 - 1) + p.datum()),
    "7 a negative schema id": lambda p: p.bad("schema.unknown", b"\0\xff\xff\xff\xff" + p.datum()),
    "9 the id of another subject": lambda p: p.bad("schema.subject", p.complaint()),
    "9 an event among the labels": lambda p: _label(p, "schema.subject", p.value()),
    "10 a header that names another schema": _other_id_in_header,
    "11 a truncated datum": lambda p: p.bad("avro.eof", p.value()[:-4]),
    "11 a truncated double": lambda p: p.bad(
        "avro.eof", p.value(items=b"", gift=b"", channel=b"", note=b"")[:-1]
    ),
    "12 a truncated varint": lambda p: p.bad("avro.eof", p.value(note=b"\x80")),
    "13 a varint of 11 bytes": lambda p: p.spoiled("avro.varint", items=b"\x80" * 10 + b"\1"),
    "13 a varint of 900 kB": lambda p: p.spoiled("avro.varint", items=b"\x80" * 900_000 + b"\1"),
    "14 trailing bytes": lambda p: p.bad("avro.trailing", p.value() + b"\0"),
    "15 a negative length": lambda p: p.spoiled("avro.length", shop=long_bytes(-5) + b"shop"),
    "15 a length of 2**62": lambda p: p.spoiled("avro.length", shop=long_bytes(2**62) + b"shop"),
    "18 enum index -1": lambda p: p.spoiled("avro.enum", channel=long_bytes(-1)),
    "18 union index -1": lambda p: p.spoiled("avro.union", note=long_bytes(-1) + text_bytes("x")),
    "19 2**40 in an int": lambda p: p.spoiled("avro.range", items=long_bytes(2**40)),
    "20 a boolean of 7": lambda p: p.spoiled("avro.boolean", gift=b"\7"),
    "22 invalid UTF-8": lambda p: p.spoiled("avro.utf8", shop=text_bytes(b"caf\xe9")),
    "22 a surrogate": lambda p: p.spoiled("avro.utf8", note=long_bytes(1) + text_bytes(b"\xed\xa0\x80")),
    "26 more than a million bytes": lambda p: p.bad("value.size", p.value() + bytes(1_020_000)),
    "30 a null key": lambda p: replace(p.spoiled("key.null"), key=None),
    "31 another customer's key": lambda p: replace(p.spoiled("key.mismatch"), key=b"somebody"),
    "31 the key of another type": lambda p: replace(p.spoiled("key.mismatch"), key=b"\0\0\0\0\x07"),
    "32 50 headers": lambda p: replace(
        p.spoiled("headers.size"), headers=[(f"h{n}", b"x") for n in range(50)]
    ),
    "32 headers of 70 kB": lambda p: replace(p.spoiled("headers.size"), headers=[("h", bytes(70_000))]),
    "32 ce_id twice": lambda p: replace(
        p.spoiled("headers.duplicate"), headers=[("ce_id", b"a"), ("ce_id", b"b")]
    ),
    "34 a Kafka timestamp in 20 minutes": lambda p: _at(p, "time.future", p.at_ms + 20 * 60_000),
    "34 a Kafka timestamp in 10 years": lambda p: _at(p, "time.future", p.at_ms + 10 * YEAR_MS),
    "34 a Kafka timestamp 10 years ago": lambda p: _at(p, "time.stale", p.at_ms - 10 * YEAR_MS),
    "34 an event time in 10 years": lambda p: p.spoiled("time.future", at=long_bytes(p.at_ms + 10 * YEAR_MS)),
    "35 an event at 1970": lambda p: p.spoiled("time.stale", at=long_bytes(0)),
    "36 the wrong partition": lambda p: replace(p.spoiled("key.partition"), partition=_elsewhere(p)),
    "37 an amount of 1e308": lambda p: p.spoiled("range.amount", amount=double_bytes(1e308)),
    "37 a negative amount": lambda p: p.spoiled("range.amount", amount=double_bytes(-0.01)),
    "37 -5 items": lambda p: p.spoiled("range.items", items=long_bytes(-5)),
    "38 NaN": lambda p: p.spoiled("nonfinite", amount=double_bytes(NAN)),
    "38 infinity": lambda p: p.spoiled("nonfinite", amount=double_bytes(INFINITY)),
    "38 minus infinity": lambda p: p.spoiled("nonfinite", amount=double_bytes(-INFINITY)),
    "38 minus zero": lambda p: p.good(amount=double_bytes(-0.0)),
    "38 a subnormal number": lambda p: p.good(amount=double_bytes(5e-324)),
    "41 the same event three times": _repeat,
    "42 one id, two contents": _conflict,
    "47 a label of no class": lambda p: _label(p, "label.class", p.complaint(complained=long_bytes(2))),
}
"""Every item that is one record, with its number; 8, 28 and 29 need more than a record."""


def records_of(case: str, purchase: Purchase) -> list[Record]:
    """The records of a case, in the order in which they are sent."""
    made = CASES[case](purchase)
    return made if isinstance(made, list) else [made]


def customers(count: int) -> list[str]:
    """Names of which every partition gets its share."""
    names = [f"customer-{number}" for number in range(count)]
    homes = partition_of(Strings.of([name.encode() for name in names]), PARTITIONS)
    if np.unique(homes).size != PARTITIONS:
        raise ValueError(f"{count} customers do not reach all {PARTITIONS} partitions")
    return names
