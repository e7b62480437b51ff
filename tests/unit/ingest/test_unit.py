"""The unit as the loop sees it: order, repeats, offsets, progress, and coming back after a kill."""

import pytest

from services.ingest.unit import IngestUnit
from shared.errors import Retry
from shared.runtime.control import CLOSED, OPEN, Replays, ReplayWord
from shared.runtime.unit import Out
from tests.unit.ingest.makers import (
    EVENTS,
    LABELS,
    NOW,
    TABLE,
    FakeSchemas,
    Heard,
    Row,
    event,
    feed,
    fraud,
    idle,
    label,
    polled,
    unit,
)

DAY = 86_400_000


def _ids(heard: Heard) -> list[str]:
    return [f"{row['kind'][0]}{row['id']}" for row in heard.rows()]


def _progress(outs: list[Out]) -> tuple[int, bool, int]:
    (out,) = outs
    assert (out.keys, out.partitions is not None and out.partitions.tolist()) == (None, [0])
    row = TABLE.read(polled(out.topic, [Row(value) for value in out.values.to_list()]))
    return int(row["order_time"].array[0]), bool(row["progress.idle"].array[0]), int(row["unit"].array[0])


# One order.


def test_events_and_labels_come_out_by_time_labels_first_at_ties() -> None:
    events = [event(stamp=t, transaction_id=str(t)) for t in (100, 300, 300, 500)]
    events[2] = event(stamp=300, transaction_id="301")
    labels = [label(stamp=t, transaction_id=str(t)) for t in (200, 300, 400)]
    assert _ids(feed(unit(), events, labels)) == ["e100", "l200", "l300", "e300", "e301", "l400", "e500"]


def test_a_row_waits_until_the_other_topic_has_passed_it() -> None:
    made = unit()
    heard = Heard().hear(
        made.step([polled(EVENTS, [event(stamp=100), event(stamp=200, transaction_id="b")])], NOW)
    )
    assert heard.values == []
    assert made.held() == {EVENTS: 2, LABELS: 0}
    heard.hear(made.step([polled(LABELS, [label(stamp=150)])], NOW))
    assert _ids(heard) == ["et1"]
    assert made.held() == {EVENTS: 1, LABELS: 1}
    assert heard.offsets == {EVENTS: 1}, "rows that wait are not committed"


def test_order_time_never_decreases_within_a_source() -> None:
    rows = [event(stamp=t, transaction_id=str(t)) for t in (300, 100, 400)]
    assert [row["order_time"] for row in feed(unit(), rows).rows()] == [300, 300, 400]


def test_a_row_older_than_what_was_released_goes_out_late_and_counted() -> None:
    made = unit()
    feed(made, [event(stamp=NOW)])
    heard = feed(made, labels=[label(stamp=NOW - 1_000)], now_ms=NOW + 5_000)
    assert (heard.late, [row["late"] for row in heard.rows()]) == (1, [True])
    assert heard.rows()[0]["order_time"] == NOW


def test_without_order_rows_pass_at_once_and_none_is_late() -> None:
    made = unit(fraud(order="arrival"))
    heard = Heard().hear(made.step([polled(EVENTS, [event(stamp=NOW)])], NOW))
    heard.hear(made.step([polled(LABELS, [label(stamp=NOW - 9_000)])], NOW))
    assert (_ids(heard), heard.late) == (["et1", "lt1"], 0)


# Repeats.


def test_a_repeat_is_dropped_and_counted() -> None:
    made = unit()
    heard = feed(made, [event(), event()], [label(), label(), label()])
    assert sorted(_ids(heard)) == ["et1", "lt1"]
    assert heard.reasons == []
    assert dict(made.counts.duplicates) == {"event": 1, "label": 2}
    assert dict(made.counts.accepted) == {"event": 1, "label": 1}
    assert heard.offsets == {EVENTS: 2, LABELS: 3}


def test_the_same_id_with_other_content_is_a_conflict_and_the_first_wins() -> None:
    heard = feed(unit(), [event(tx_amount=1.0), event(tx_amount=2.0), event(tx_amount=1.0)])
    assert [row["amount"] for row in heard.rows()] == [1.0]
    assert (heard.reasons, heard.dead) == (["id.conflict"], [(EVENTS, 1)])


def test_labels_of_one_id_pass_with_each_other_content_once() -> None:
    made = unit()
    said = [label(tx_fraud=outcome) for outcome in (0, 1, 0, 1)]
    heard = feed(made, [event()], [*said, label(tx_fraud=1, tx_time=NOW - 1)])
    assert [row["offset"] for row in heard.rows() if row["kind"] == "label"] == [0, 1, 4]
    assert (heard.reasons, dict(made.counts.duplicates)) == ([], {"event": 0, "label": 2})
    assert len(made.snapshot()["label|entries"]) == 3


def test_a_label_is_forgotten_behind_the_horizon_whatever_came_between() -> None:
    made = unit(fraud(dedup_horizon_ms=1_000))
    given = ((5_000, 0), (5_500, 1), (6_000, 0), (6_001, 0), (6_500, 1))
    rows = [label(stamp=stamp, tx_time=1, tx_fraud=outcome) for stamp, outcome in given]
    assert [row["offset"] for row in feed(made, labels=rows).rows()] == [0, 1, 3]


def test_labels_of_two_sources_or_two_message_ids_are_not_one() -> None:
    rows = [label(headers=[("ce_source", source), ("ce_id", b"1")]) for source in (b"bank", b"shop", b"bank")]
    heard = feed(unit(), labels=[*rows, label(headers=[("ce_source", b"bank"), ("ce_id", b"2")])])
    assert [row["offset"] for row in heard.rows()] == [0, 1, 3]


def test_a_conflict_behind_a_bad_row_names_its_own_offset() -> None:
    rows = [event(tx_amount=-1.0), event(tx_amount=1.0), event(tx_amount=2.0)]
    heard = feed(unit(), rows)
    assert list(zip(heard.reasons, heard.dead, strict=True)) == [
        ("range.tx_amount", (EVENTS, 0)),
        ("id.conflict", (EVENTS, 2)),
    ]


def test_a_dead_letter_does_not_take_the_id() -> None:
    heard = feed(unit(), [event(tx_amount=-5.0), event(tx_amount=5.0)])
    assert (heard.reasons, _ids(heard)) == (["range.tx_amount"], ["et1"])


def test_an_id_is_forgotten_behind_the_horizon() -> None:
    made = unit(fraud(dedup_horizon_ms=1_000))
    rows = [event(stamp=t, tx_time=1) for t in (5_000, 6_000, 6_001)]
    assert [row["offset"] for row in feed(made, rows).rows()] == [0, 2]


@pytest.mark.parametrize(
    ("first", "second", "passed"),
    [
        (None, [("ce_id", b"t1")], 1),
        (None, [("ce_id", b"t1"), ("ce_source", b"")], 1),
        (None, [("ce_source", b"shop")], 2),
        ([("ce_id", b"1"), ("ce_source", b"a")], [("ce_id", b"1"), ("ce_source", b"b")], 2),
        ([("ce_id", b"1"), ("ce_source", b"a")], [("ce_id", b"1"), ("ce_source", b"a")], 1),
        ([("ce_id", b"1")], [("ce_id", b"2")], 2),
        ([("ce_id", b"1"), ("ce_source", b"ab")], [("ce_id", b"b1"), ("ce_source", b"a")], 2),
    ],
)
def test_identity_is_source_and_id(
    first: list[tuple[str, bytes]] | None, second: list[tuple[str, bytes]] | None, passed: int
) -> None:
    assert len(feed(unit(), [event(headers=first), event(headers=second)]).values) == passed


# The registry away.


def test_a_registry_that_is_away_leaves_everything_as_it_was() -> None:
    schemas = FakeSchemas()
    made = unit(schemas_=schemas)
    rows = [polled(EVENTS, [event()]), polled(LABELS, [label()])]
    before = (made.digest(), dict(made.held()))
    schemas.away = True
    for _ in range(3):
        with pytest.raises(Retry):
            made.step(rows, NOW)
        assert (made.digest(), dict(made.held())) == before
    schemas.away = False
    heard = Heard().hear(made.step(rows, NOW))
    assert sorted(_ids(Heard(heard.values + idle(made).values))) == ["et1", "lt1"]


# Progress.


def test_progress_says_how_far_and_only_what_is_new() -> None:
    made = unit()
    assert made.progress() == []
    made.step([polled(EVENTS, [event(stamp=100)]), polled(LABELS, [label(stamp=80)])], NOW)
    assert _progress(made.progress()) == (80, False, 0)
    assert made.progress() == []
    idle(made)
    assert _progress(made.progress()) == (100, True, 0)
    assert made.progress() == []


def test_an_empty_unit_is_idle_after_twenty_milliseconds_at_its_end() -> None:
    made = unit()
    for topic in (EVENTS, LABELS):
        made.at_end(topic, True)
    made.step([], NOW)
    made.step([], NOW + 19)
    assert made.progress() == []
    made.step([], NOW + 20)
    assert _progress(made.progress()) == (0, True, 0)


# Replays.


def _word(state: str, order_time: int, events: int, labels: int) -> ReplayWord:
    offsets = {f"{EVENTS}/0": events, f"{LABELS}/0": labels}
    return ReplayWord("r", state, order_time, 10_000, offsets, said_ms=NOW)


def test_an_open_replay_holds_idleness_back_and_its_word_moves_the_order() -> None:
    replays = Replays()
    replays.take([_word(OPEN, 50, 0, 0)])
    made = unit(replays=replays)
    heard = Heard().hear(made.step([polled(EVENTS, [event(stamp=100)])], NOW))
    for topic in (EVENTS, LABELS):
        made.at_end(topic, True)
    heard.hear(made.step([], NOW + 5_000))
    assert heard.values == [], "the labels are silent, but the replay may bring some"
    replays.take([_word(OPEN, 101, 1, 0)])
    heard.hear(made.step([], NOW + 5_001))
    assert _ids(heard) == ["et1"]
    assert _progress(made.progress()) == (101, False, 0)


def test_a_word_counts_only_from_the_position_that_it_names() -> None:
    replays = Replays()
    replays.take([_word(OPEN, 500, 2, 1)])
    made = unit(replays=replays)
    rows = [event(stamp=100, transaction_id="a"), event(stamp=200, transaction_id="b")]
    heard = Heard().hear(made.step([polled(EVENTS, rows[:1])], NOW))
    heard.hear(made.step([polled(LABELS, [label(stamp=90)])], NOW))
    assert _ids(heard) == ["lt1"], "the events have not come to 500, so only what is before 100 may go"
    heard.hear(made.step([polled(EVENTS, rows[1:], start=1)], NOW))
    assert _ids(heard) == ["lt1", "ea", "eb"]


def test_a_dead_replay_ends_with_its_lease() -> None:
    replays = Replays()
    replays.take([_word(OPEN, 50, 0, 0)])
    made = unit(replays=replays)
    made.step([polled(EVENTS, [event(stamp=100)])], NOW)
    for topic in (EVENTS, LABELS):
        made.at_end(topic, True)
    assert made.step([], NOW + 10_000).outs == []
    assert len(made.step([], NOW + 10_001).outs) == 1


def test_idle_sources_are_expected_again_when_a_replay_opens() -> None:
    replays = Replays()
    made = unit(replays=replays)
    idle(made)
    _progress(made.progress())
    replays.take([_word(OPEN, 50, 9, 9)])
    heard = Heard().hear(made.step([], NOW + 3_000))
    heard.hear(
        made.step(
            [polled(EVENTS, [event(stamp=100), event(stamp=100_000, tx_amount=1.0, transaction_id="b")])],
            NOW + 3_000,
        )
    )
    assert (heard.values, heard.dead) == ([], []), "the labels are expected again"
    replays.take([_word(CLOSED, 100_000, 2, 0)])
    assert _ids(heard.hear(made.step([], NOW + 3_001))) == ["et1"]


def test_a_broken_promise_of_a_replay_overtakes_nothing() -> None:
    replays = Replays()
    replays.take([_word(OPEN, 1_000, 0, 0)])
    made = unit(replays=replays)
    rows = [event(stamp=t, transaction_id=str(t)) for t in (50, 60, 2_000)]
    heard = Heard().hear(made.step([], NOW))
    for at, row in enumerate(rows):
        heard.hear(made.step([polled(EVENTS, [row], start=at)], NOW))
    assert heard.values == []
    replays.take([_word(CLOSED, 3_000, 3, 0)])
    heard.hear(made.step([], NOW))
    assert [row["order_time"] for row in heard.rows()] == [1_000, 1_000, 2_000]


# State.


def _history() -> IngestUnit:
    made = unit()
    feed(
        made,
        [event(stamp=t, transaction_id=str(t % 700), tx_time=1) for t in range(100, 1_000, 100)],
        [label(stamp=t, transaction_id=str(t), tx_time=1) for t in range(150, 1_000, 100)],
    )
    return made


def test_a_restored_unit_is_equal_and_goes_on_equally() -> None:
    made = _history()
    other = unit()
    other.restore(made.snapshot())
    assert other.digest() == made.digest()
    more = ([event(stamp=2_000, transaction_id="300", tx_time=1)], [label(stamp=2_000, tx_time=1)])
    assert feed(other, *more, now_ms=NOW + 9_000).values == feed(made, *more, now_ms=NOW + 9_000).values
    assert other.digest() == made.digest()


@pytest.mark.parametrize(
    ("events", "labels"),
    [([event(stamp=500, transaction_id="new", tx_time=1)], []), ([], [label(stamp=500, tx_time=1)])],
)
def test_a_restored_unit_knows_where_the_order_stands(events: list[Row], labels: list[Row]) -> None:
    made = _history()
    other = unit()
    other.restore(made.snapshot())
    heard, again = (feed(u, events, labels, now_ms=NOW + 9_000) for u in (made, other))
    assert heard.values == again.values
    assert heard.rows()[0]["order_time"] >= 850


def test_a_replayed_unit_knows_where_the_order_stands() -> None:
    other = unit()
    other.replay([polled(EVENTS, [event(stamp=900)])])
    (row,) = feed(other, labels=[label(stamp=500)]).rows()
    assert (row["order_time"], row["late"]) == (900, True)


def test_replaying_what_was_committed_gives_the_same_state() -> None:
    events = [event(stamp=t, transaction_id=str(t), tx_time=1) for t in (100, 200, 300, 400)]
    labels = [label(stamp=t, transaction_id=str(t), tx_time=1) for t in (150, 250)]
    made = unit()
    heard = Heard().hear(made.step([polled(EVENTS, events), polled(LABELS, labels)], NOW))
    assert heard.offsets == {EVENTS: 2, LABELS: 1}
    other = unit()
    other.replay([polled(LABELS, labels[:1])])
    other.replay([polled(EVENTS, events[:2])])
    assert other.digest() == made.digest()
    rest = [polled(EVENTS, events[2:], start=2), polled(LABELS, labels[1:], start=1)]
    heard.hear(other.step(rest, NOW))
    assert _ids(heard) == ["e100", "l150", "e200"]
    heard.values += idle(other).values
    assert _ids(heard) == ["e100", "l150", "e200", "l250", "e300", "e400"]


def test_rows_that_wait_are_not_part_of_the_state() -> None:
    made = unit()
    made.step([polled(EVENTS, [event()])], NOW)
    assert made.digest() == unit().digest()
    other = unit()
    other.restore(made.snapshot())
    assert other.held() == {EVENTS: 0, LABELS: 0}


def test_offsets_are_told_once_and_only_when_they_move() -> None:
    made = unit()
    heard = feed(made, [event()], [label()])
    assert heard.offsets == {EVENTS: 1, LABELS: 1}
    assert made.step([], NOW + 9_000).next_offsets == {}


def test_the_fuse_hears_of_good_and_bad() -> None:
    made = unit()
    for topic in (EVENTS, LABELS):
        made.at_end(topic, True)
    made.step([polled(EVENTS, [event(), event(), event(tx_amount=-1.0)])], NOW)
    emission = made.step([], NOW + 30)
    assert (emission.good, len(emission.dead)) == (2, 1)


def test_keys_and_partition_are_those_of_the_source() -> None:
    made = unit()
    for topic in (EVENTS, LABELS):
        made.at_end(topic, True)
    rows = [event(customer_id=c, transaction_id=c) for c in ("x", "y")]
    made.step([polled(EVENTS, rows), polled(LABELS, [label(stamp=NOW + 1, customer_id="z")])], NOW)
    (out,) = made.step([], NOW + 30).outs
    assert out.topic == "fraud.accepted.v1"
    assert out.keys is not None
    assert (out.keys.to_list(), out.partitions is not None and out.partitions.tolist()) == (
        [b"x", b"y", b"z"],
        [0, 0, 0],
    )


def test_horizon_is_one_day_in_the_demo_pipeline() -> None:
    assert fraud().event.dedup_horizon_ms == DAY
