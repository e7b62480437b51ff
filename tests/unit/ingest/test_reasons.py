"""Every way to be turned away, one named case each, among good rows that must pass untouched."""

from dataclasses import replace

import numpy as np
import pytest

from services.ingest.core.spec import Limits
from shared.codec.batch import Strings
from shared.codec.frame import frame_prefix
from shared.codec.hashing import partition_of
from tests.unit.ingest.makers import (
    EVENTS,
    LABELS,
    NOW,
    Row,
    datum,
    event,
    feed,
    fraud,
    label,
    polled,
    unit,
)

GOOD = event().value or b""
MINUTE, DAY, YEAR = 60_000, 86_400_000, 31_536_000_000
NAN, INF = float("nan"), float("inf")


def _with(value: bytes | None) -> Row:
    return replace(event(), value=value)


def _datum(raw: bytes) -> Row:
    return _with(frame_prefix(1) + raw)


EVENT_CASES = {
    "null value": (_with(None), "tombstone.unexpected"),
    "empty value": (_with(b""), "frame.short"),
    "one byte": (_with(b"\0"), "frame.short"),
    "five bytes": (_with(GOOD[:5]), "frame.short"),
    "other magic": (_with(b"\5" + GOOD[1:]), "frame.magic"),
    "short guid": (_with(b"\1" + GOOD[1:8]), "frame.magic"),
    "plain json": (_with(b'{"transaction_id": "t1"}'), "frame.magic"),
    "unknown schema id": (_with(frame_prefix(77) + GOOD[5:]), "schema.unknown"),
    "id of another subject": (_with(frame_prefix(2) + GOOD[5:]), "schema.subject"),
    "unreadable version": (_with(frame_prefix(4) + GOOD[5:]), "schema.incompatible"),
    "truncated": (_datum(datum()[:-3]), "avro.eof"),
    "truncated varint": (_datum(b"\x80"), "avro.eof"),
    "overlong varint": (_datum(b"\x80" * 11 + b"\0" * 60), "avro.varint"),
    "trailing bytes": (_datum(datum() + b"\0"), "avro.trailing"),
    "negative length": (_datum(b"\x03" + datum()[1:]), "avro.length"),
    "huge length": (_datum(b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + datum()), "avro.length"),
    "broken utf-8": (_datum(b"\x04\xff\xfe" + datum()[3:]), "avro.utf8"),
    "null key": (replace(event(), key=None), "key.null"),
    "key of another": (event(key=b"c2"), "key.mismatch"),
    "oversized key": (event(key=b"c" * 2_000), "key.size"),
    "oversized value": (_with(GOOD + b"\0" * 1_000_000), "value.size"),
    "too many headers": (event(headers=[("h", b"")] * 33), "headers.size"),
    "too large headers": (event(headers=[("h", b"x" * 65_536)]), "headers.size"),
    "ce_id twice": (event(headers=[("ce_id", b"1"), ("ce_id", b"2")]), "headers.duplicate"),
    "stamp in ten years": (event(stamp=NOW + 10 * YEAR, tx_time=NOW), "time.future"),
    "stamp ten years ago": (event(stamp=NOW - 10 * YEAR, tx_time=NOW), "time.stale"),
    "no stamp": (event(stamp=-1, tx_time=NOW), "time.stale"),
    "event in the future": (event(tx_time=NOW + 6 * MINUTE), "time.future"),
    "event at epoch 0": (event(tx_time=0), "time.stale"),
    "event before 1970": (event(tx_time=-DAY), "time.stale"),
    "nan": (event(tx_amount=NAN), "nonfinite"),
    "infinity": (event(tx_amount=INF), "nonfinite"),
    "minus infinity": (event(tx_amount=-INF), "nonfinite"),
    "below the range": (event(tx_amount=-0.01), "range.tx_amount"),
    "above the range": (event(tx_amount=1e308), "range.tx_amount"),
}
LABEL_CASES = {
    "no class": (label(tx_fraud=2), "label.class"),
    "key of another": (replace(label(), key=b"c9"), "key.mismatch"),
    "no future": (label(tx_time=NOW + 6 * MINUTE), "time.future"),
    "an event": (event(), "schema.subject"),
}


@pytest.mark.parametrize("case", EVENT_CASES)
def test_bad_event_is_a_dead_letter_between_good_ones(case: str) -> None:
    bad, reason = EVENT_CASES[case]
    heard = feed(unit(), [event(transaction_id="a"), bad, event(transaction_id="b")], [label()])
    assert heard.reasons == [reason]
    assert heard.dead == [(EVENTS, 1)]
    assert sorted(row["id"] for row in heard.rows()) == ["a", "b", "t1"]
    assert heard.offsets == {EVENTS: 3, LABELS: 1}


@pytest.mark.parametrize("case", LABEL_CASES)
def test_bad_label_is_a_dead_letter_between_good_ones(case: str) -> None:
    bad, reason = LABEL_CASES[case]
    heard = feed(unit(), [event()], [label(transaction_id="a"), bad, label(transaction_id="b")])
    assert (heard.reasons, heard.dead) == ([reason], [(LABELS, 1)])
    assert sorted(row["id"] for row in heard.rows()) == ["a", "b", "t1"]


def test_a_dead_letter_carries_the_original_bytes_and_says_what_to_do() -> None:
    bad = replace(event(stamp=NOW - 5), value=b"{}", key=None, headers=[("h", b"x")])
    made = unit()
    made.step([], NOW)
    for topic in (EVENTS, LABELS):
        made.at_end(topic, True)
    made.step([polled(EVENTS, [bad], start=7)], NOW)
    (letter,) = made.step([], NOW + 30).dead
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp) == (EVENTS, 0, 7, NOW - 5)
    assert (letter.key, letter.value, letter.headers) == (None, b"{}", [("h", b"x")])
    assert letter.reason == "key.null"
    assert "customer_id" in letter.message


@pytest.mark.parametrize(
    "passing",
    [
        event(stamp=NOW + 4 * MINUTE),
        event(tx_time=NOW + 4 * MINUTE),
        event(stamp=NOW - 10 * YEAR),
        event(tx_time=NOW - 10 * YEAR),
        event(tx_amount=0.0),
        event(tx_amount=5e-324),
        event(tx_amount=100_000.0),
        event(headers=[("h", b"")] * 32),
        event(headers=[("__value_schema_id", b"\0" * 16), ("ce_id", None)]),
    ],
)
def test_what_is_only_unusual_passes(passing: Row) -> None:
    heard = feed(unit(), [passing], [label()])
    assert (heard.reasons, len(heard.values)) == ([], 2)


def test_minus_zero_becomes_zero() -> None:
    (row,) = feed(unit(), [event(tx_amount=-0.0)]).rows()
    assert np.signbit(row["amount"]) == np.False_


def test_declared_age_is_a_bound_on_events_and_not_on_labels() -> None:
    made = unit(fraud(max_age_ms=DAY))
    heard = feed(
        made, [event(tx_time=NOW - DAY - 1), event(tx_time=NOW - DAY)], [label(tx_time=NOW - 9 * DAY)]
    )
    assert heard.reasons == ["time.stale"]
    assert len(heard.values) == 2


def test_limits_are_settable() -> None:
    small = Limits(max_value_bytes=20, max_key_bytes=1, max_headers=0, max_header_bytes=0)
    assert feed(unit(limits=small), [event()]).reasons == ["value.size"]
    assert feed(unit(limits=replace(small, max_value_bytes=99)), [event()]).reasons == ["key.size"]


def test_every_key_belongs_to_one_unit() -> None:
    keys = [f"c{i}" for i in range(40)]
    own = partition_of(Strings.of([k.encode() for k in keys]), 4)
    rows = [event(customer_id=k, transaction_id=k) for k in keys]
    for number in range(4):
        heard = feed(unit(fraud(partitions=4), number), rows)
        assert {row["id"] for row in heard.rows()} == {
            k for k, p in zip(keys, own, strict=True) if p == number
        }
        assert set(heard.reasons) == {"key.partition"}
        assert {row["unit"] for row in heard.rows()} == {number}


def test_the_first_failing_check_names_the_reason() -> None:
    worst = Row(value=b"{", key=None, stamp=NOW + 10 * YEAR)
    assert feed(unit(), [worst]).reasons == ["key.null"]
    assert feed(unit(), [replace(event(tx_amount=NAN, tx_time=0), key=b"c2")]).reasons == ["key.mismatch"]
    assert feed(unit(), [event(tx_amount=NAN, tx_time=0)]).reasons == ["time.stale"]


def test_bad_rows_do_not_move_the_order() -> None:
    rows = [
        event(stamp=1_000, transaction_id="a"),
        event(stamp=NOW + 10 * YEAR, transaction_id="b", tx_time=1_000),
        replace(event(stamp=NOW), value=b"{not avro}"),
        event(stamp=2_000, transaction_id="c"),
    ]
    heard = feed(unit(), rows)
    assert heard.reasons == ["time.future", "frame.magic"]
    assert [(row["id"], row["order_time"]) for row in heard.rows()] == [("a", 1_000), ("c", 2_000)]
