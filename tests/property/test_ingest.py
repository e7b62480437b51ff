"""Laws of the door: how rows are cut into polls and how the topics are interleaved cannot be seen from outside."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.core.dedup import Dedup, identify
from services.ingest.unit import IngestUnit
from shared.codec.batch import Strings
from tests.unit.ingest.makers import EVENTS, LABELS, NOW, Heard, Row, event, fraud, idle, label, polled, unit

HORIZON = 50


@dataclass(frozen=True)
class Kept:
    """What the naive rule keeps of an id: payload and time."""

    payload: int
    time: int


def naive(rows: list[tuple[int, int, int]]) -> list[int]:
    """The rule in its plainest form: (id, payload, time) to verdicts."""
    seen: dict[int, Kept] = {}
    out = []
    for name, payload, time in rows:
        kept = seen.get(name)
        if kept is None or time - kept.time > HORIZON:
            seen[name] = Kept(payload, time)
            out.append(0)
        else:
            out.append(1 if kept.payload == payload else 2)
    return out


@st.composite
def id_streams(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    steps = draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 20)), max_size=80))
    time = 1
    rows = []
    for name, payload, step in steps:
        time += step
        rows.append((name, payload, time))
    return rows


@settings(max_examples=200, deadline=None)
@given(id_streams(), st.lists(st.integers(0, 80), max_size=6))
def test_dedup_is_the_naive_rule_however_it_is_cut(rows: list[tuple[int, int, int]], cuts: list[int]) -> None:
    seen, whole = Dedup(HORIZON), Dedup(HORIZON)
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    found: list[int] = []
    for begin, end in pairwise(bounds):
        found += _fold(seen, rows[begin:end])
        again = Dedup(HORIZON)
        again.restore(seen.snapshot())
        assert again.digest() == seen.digest()
        seen = again
    assert found == naive(rows)
    _fold(whole, rows)
    assert whole.digest() == seen.digest()


def _fold(seen: Dedup, rows: list[tuple[int, int, int]]) -> list[int]:
    first, second = identify(Strings.of([b"%d" % name for name, _, _ in rows]))
    payload = np.array([p for _, p, _ in rows], np.uint64)
    verdicts = seen.fold(first, second, payload, np.array([t for _, _, t in rows], np.int64))
    return [int(verdict) for verdict in verdicts]


@st.composite
def topics(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    def rows(make: Any, bad: dict[str, Any]) -> list[Row]:
        size = draw(st.integers(1, 25))
        made = []
        for _ in range(size):
            stamp = 1_000 + draw(st.integers(0, 300))
            name = str(draw(st.integers(0, 8)))
            wrong = bad if draw(st.integers(0, 9)) == 0 else {}
            made.append(make(stamp=stamp, transaction_id=name, tx_time=5, **wrong))
        return made

    return rows(event, {"tx_amount": -1.0}), rows(label, {"tx_fraud": 7})


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[bool, int]]:
    """Which topic is read next, and how many rows at most."""
    return draw(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=40))


def _run(made: IngestUnit, rows: tuple[list[Row], list[Row]], schedule: list[tuple[bool, int]]) -> Heard:
    """Read both topics as the schedule says, the rest at once; then both fall silent."""
    heard = Heard()
    at = [0, 0]
    for second, most in [*schedule, (False, 99), (True, 99)]:
        which = int(second)
        part = rows[which][at[which] : at[which] + most]
        if part:
            read = polled((EVENTS, LABELS)[which], part, start=at[which])
            heard.hear(made.step([read], NOW))
            at[which] += len(part)
        made.progress()
    after = idle(made)
    heard.values += after.values
    heard.dead += after.dead
    heard.late += after.late
    heard.offsets |= after.offsets
    return heard


@settings(max_examples=150, deadline=None)
@given(topics(), schedules(), schedules())
def test_cuts_and_interleaving_cannot_be_seen(
    rows: tuple[list[Row], list[Row]], one: list[tuple[bool, int]], other: list[tuple[bool, int]]
) -> None:
    pipeline = fraud(dedup_horizon_ms=HORIZON)
    first, second = unit(pipeline), unit(pipeline)
    heard, again = _run(first, rows, one), _run(second, rows, other)
    assert heard.values == again.values
    assert heard.dead == again.dead
    assert (heard.late, again.late) == (0, 0)
    assert heard.offsets == again.offsets == {EVENTS: len(rows[0]), LABELS: len(rows[1])}
    assert first.digest() == second.digest()


@settings(max_examples=150, deadline=None)
@given(topics(), schedules(), st.integers(0, 25), st.integers(0, 25))
def test_a_request_written_twice_changes_nothing(
    rows: tuple[list[Row], list[Row]], schedule: list[tuple[bool, int]], begin: int, size: int
) -> None:
    """As by a producer whose broker dies between writing and acknowledging, and forgets its sequence numbers."""
    pipeline = fraud(dedup_horizon_ms=1_000)
    once, twice = unit(pipeline), unit(pipeline)
    doubled = (_doubled(rows[0], begin, size), _doubled(rows[1], begin, size))
    heard, again = _run(once, rows, schedule), _run(twice, doubled, schedule)
    assert again.offsets == {EVENTS: len(doubled[0]), LABELS: len(doubled[1])}
    assert _contents(again) == _contents(heard)
    assert twice.digest() == once.digest()


def _doubled(rows: list[Row], begin: int, size: int) -> list[Row]:
    request = rows[begin : begin + size]
    return rows[: begin + len(request)] + request + rows[begin + len(request) :]


def _contents(heard: Heard) -> list[dict[str, Any]]:
    """What came out, but for the offset at which it was read."""
    return [{name: value for name, value in row.items() if name != "offset"} for row in heard.rows()]


@settings(max_examples=150, deadline=None)
@given(topics(), schedules(), st.integers(0, 40))
def test_a_kill_anywhere_changes_nothing(
    rows: tuple[list[Row], list[Row]], schedule: list[tuple[bool, int]], kill_at: int
) -> None:
    """Committed outputs, then recovery from an older snapshot: the rest follows as if nothing had been."""
    pipeline = fraud(dedup_horizon_ms=HORIZON)
    whole = _run(unit(pipeline), rows, schedule)
    made, snapshot, saved = unit(pipeline), None, {EVENTS: 0, LABELS: 0}
    heard, at = Heard(), [0, 0]
    for step, (second, most) in enumerate(schedule[:kill_at]):
        which = int(second)
        part = rows[which][at[which] : at[which] + most]
        if part:
            heard.hear(made.step([polled((EVENTS, LABELS)[which], part, start=at[which])], NOW))
            at[which] += len(part)
        if step % 3 == 0:
            snapshot, saved = made.snapshot(), {EVENTS: 0, LABELS: 0} | heard.offsets
    committed = {EVENTS: 0, LABELS: 0} | heard.offsets
    reborn = unit(pipeline)
    if snapshot is not None:
        reborn.restore(snapshot)
    for topic, own in ((LABELS, rows[1]), (EVENTS, rows[0])):
        reborn.replay([polled(topic, own[saved[topic] : committed[topic]], start=saved[topic])])
    assert reborn.digest() == made.digest()
    rest = [
        polled(topic, own[committed[topic] :], start=committed[topic])
        for topic, own in ((EVENTS, rows[0]), (LABELS, rows[1]))
    ]
    heard.hear(reborn.step(rest, NOW))
    after = idle(reborn)
    assert heard.values + after.values == whole.values
    assert heard.dead + after.dead == whole.dead
