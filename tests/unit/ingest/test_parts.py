"""The parts of the door one by one: seen ids, idleness, replays' words, schema ids, metrics, settings."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.ingest.core.dedup import Dedup, identify
from services.ingest.core.door import SourceClock
from services.ingest.core.fold import Counts
from services.ingest.core.intake import Unusable
from services.ingest.core.rows import Queue, join
from services.ingest.metrics import DoorMetrics
from services.ingest.schemas import MISS_TTL_S, RegistrySchemas
from services.ingest.settings import IngestSettings
from shared.codec.batch import Strings
from shared.codec.frame import frame_prefix
from shared.codec.program import Program
from shared.errors import Retry
from shared.kafka.registry import Schema
from shared.kafka.registry_memory import MemoryRegistry
from shared.runtime.control import CLOSED, OPEN, Replays, ReplayWord
from tests.unit.ingest.makers import EVENT, EVENTS, FRAUD, LABELS, NOW, Row, datum, polled

# Seen ids.


def _fold(seen: Dedup, ids: list[str], payloads: list[int], times: list[int]) -> list[int]:
    first, second = identify(Strings.of([i.encode() for i in ids]))
    verdicts = seen.fold(first, second, np.array(payloads, np.uint64), np.array(times, np.int64))
    return [int(verdict) for verdict in verdicts]


def test_the_first_of_several_wins_until_the_horizon_has_passed() -> None:
    seen = Dedup(100)
    assert _fold(seen, list("aaaa"), [1, 2, 1, 2], [10, 50, 110, 111]) == [0, 2, 1, 0]


def test_a_repeat_does_not_renew_the_entry() -> None:
    seen = Dedup(100)
    assert _fold(seen, list("aaa"), [1, 1, 1], [10, 100, 120]) == [0, 1, 0]


def test_memory_is_bounded_by_what_the_horizon_holds() -> None:
    seen = Dedup(1_000)
    for begin in range(1, 200_001, 5_000):
        ids = [str(i) for i in range(begin, begin + 5_000)]
        assert set(_fold(seen, ids, [0] * 5_000, list(range(begin, begin + 5_000)))) == {0}
    assert len(seen) == 1_001
    assert seen.slots <= 16_384


def test_many_ids_grow_the_table_within_one_call() -> None:
    seen = Dedup(10**9)
    ids = [str(i) for i in range(30_000)]
    assert set(_fold(seen, ids, [0] * 30_000, [5] * 30_000)) == {0}
    assert set(_fold(seen, ids, [0] * 30_000, [6] * 30_000)) == {1}
    assert len(seen) == 30_000


def test_state_is_canonical_and_comes_back() -> None:
    one, two, three = Dedup(100), Dedup(100), Dedup(100)
    _fold(one, list("abc"), [1, 2, 3], [7, 7, 8])
    for name, payload, time in zip("abc", [1, 2, 3], [7, 7, 8], strict=True):
        _fold(two, [name], [payload], [time])
    three.restore(one.snapshot())
    assert one.digest() == two.digest() == three.digest()
    assert _fold(three, ["b"], [9], [9]) == [2]
    with pytest.raises(ValueError, match="n by 4"):
        three.restore({"entries": np.zeros((2, 3), np.uint64)})


def test_the_size_of_the_table_does_not_show_in_the_digest() -> None:
    one, two = Dedup(100), Dedup(100)
    many = [str(i) for i in range(3_000)]
    _fold(one, many, [0] * 3_000, [1] * 3_000)
    for seen in (one, two):
        _fold(seen, list("abcdefghijklmnop"), [1] * 16, [500] * 16)
    assert one.slots != two.slots
    assert one.digest() == two.digest()


def test_expired_entries_do_not_show_in_the_digest() -> None:
    one, two = Dedup(100), Dedup(100)
    _fold(one, list("ab"), [1, 2], [7, 500])
    _fold(two, ["b"], [2], [500])
    assert one.digest() == two.digest()


@pytest.mark.parametrize(
    ("ids", "payloads", "times"),
    [("ac", [1, 2], [7, 8]), ("ab", [1, 3], [7, 8]), ("ab", [1, 2], [6, 8]), ("abc", [1, 2, 3], [7, 8, 8])],
)
def test_every_part_of_an_entry_shows_in_the_digest(ids: str, payloads: list[int], times: list[int]) -> None:
    one, two = Dedup(100), Dedup(100)
    _fold(one, list("ab"), [1, 2], [7, 8])
    _fold(two, list(ids), payloads, times)
    assert one.digest() != two.digest()


def test_empty_source_is_no_source() -> None:
    ids = Strings.of([b"1", b"2"])
    plain = identify(ids)
    for half, other in zip(plain, identify(ids, Strings.of([b"", b""])), strict=True):
        assert half.tolist() == other.tolist()
    assert identify(ids, Strings.of([b"s", b"s"]))[0].tolist() != plain[0].tolist()


# Idleness.

NEAR, FAR = NOW - 1_000, NOW - 3_600_000


@pytest.mark.parametrize(
    ("at_end", "replaying", "order_ms", "silent_ms", "idle"),
    [
        (True, False, NEAR, 19, False),
        (True, False, NEAR, 20, True),
        (True, False, 0, 19, False),
        (True, False, 0, 20, True),
        (True, False, FAR, 1_999, False),
        (True, False, FAR, 2_000, True),
        (True, False, NOW + 3_600_000, 20, False),
        (False, False, NEAR, 60_000, False),
        (False, False, 0, 60_000, False),
        (True, True, NEAR, 60_000, False),
        (True, True, 0, 60_000, False),
    ],
)
def test_when_a_source_is_idle(
    at_end: bool, replaying: bool, order_ms: int, silent_ms: int, idle: bool
) -> None:
    clock = SourceClock(at_end=at_end)
    clock.hear(NOW - silent_ms, order_ms)
    assert clock.idle(NOW, replaying) is idle


def test_silence_counts_from_the_first_question() -> None:
    clock = SourceClock(at_end=True)
    assert [clock.idle(NOW + t, False) for t in (0, 19, 20)] == [False, False, True]


# Replays' words.


def _word(name: str, state: str, time: int, offset: int, said: int = NOW) -> ReplayWord:
    return ReplayWord(name, state, time, 1_000, {"e/0": offset}, said)


@pytest.mark.parametrize(
    ("words", "now", "is_open"),
    [
        ([], NOW, False),
        ([_word("a", OPEN, 1, 0)], NOW + 1_000, True),
        ([_word("a", OPEN, 1, 0)], NOW + 1_001, False),
        ([_word("a", OPEN, 1, 0), _word("a", OPEN, 2, 0, NOW + 500)], NOW + 1_500, True),
        ([_word("a", OPEN, 1, 0), _word("a", CLOSED, 2, 0)], NOW, False),
        ([_word("a", OPEN, 1, 0), _word("b", CLOSED, 2, 0)], NOW, True),
        ([_word("a", OPEN, 1, 0), _word("b", OPEN, 1, 0), _word("a", CLOSED, 2, 0)], NOW, True),
    ],
)
def test_when_a_replay_is_open(words: list[ReplayWord], now: int, is_open: bool) -> None:
    replays = Replays()
    replays.take(words)
    assert replays.open(now) is is_open


def test_marks_are_by_position_and_hold_for_earlier_positions_too() -> None:
    replays = Replays()
    replays.take([_word("a", OPEN, t, o) for t, o in ((10, 0), (20, 5), (25, 5), (40, 9))])
    replays.take([_word("a", CLOSED, 50, 9)])
    found = [replays.mark_for("e", 0, position) for position in (9, 8, 5, 4, 0)]
    assert found == [50, 25, 25, 10, 10]
    assert replays.mark_for("e", 1, 9) is None


def test_marks_stay_bounded_and_true() -> None:
    replays = Replays()
    replays.take([_word("a", OPEN, 10 * i, i) for i in range(1, 100_000)])
    for position in (1, 777, 50_000, 99_999):
        mark = replays.mark_for("e", 0, position)
        assert mark is None or mark <= 10 * position
    assert replays.mark_for("e", 0, 99_999) == 999_990
    marks = replays._marks["e/0"]
    assert len(marks.offsets) == len(marks.times) <= 20_000


def test_words_survive_the_wire_and_anything_else_is_ignored() -> None:
    word = ReplayWord("r", OPEN, NOW + 5, 10_000, {"e/0": 3, "l/0": 0}, said_ms=NOW)
    value = word.encode(frame_prefix(9))
    assert ReplayWord.decode(value, NOW) == word
    replays = Replays()
    rows = [
        Row(v, stamp=NOW) for v in (value, None, b"", b"\0\0\0", value[:-1], value + b"x", b"\1" + value[1:])
    ]
    replays.step(polled("fraud.replays.v1", rows))
    assert (replays.ignored, replays.open(NOW)) == (6, True)


# Schema ids.


class _Away(MemoryRegistry):
    """Counts its questions, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.away = False

    def schema_of(self, schema_id: int) -> Schema | None:
        """As its parent, when it is there."""
        self.asked += 1
        if self.away:
            raise Retry("away")
        return super().schema_of(schema_id)


def _registry() -> tuple[_Away, dict[str, int]]:
    assert FRAUD.label is not None
    registry = _Away()
    ids = {
        t: registry.register(f"{t}-value", a)
        for t, a in ((EVENTS, FRAUD.event.avro), (LABELS, FRAUD.label.avro))
    }
    return registry, ids


def test_ids_of_the_subject_decode_and_others_are_refused() -> None:
    registry, ids = _registry()
    schemas = RegistrySchemas(registry, {EVENTS: FRAUD.event.avro}, lambda: 0.0)
    program = schemas.program_for(EVENTS, ids[EVENTS])
    assert isinstance(program, Program)
    assert not program.decode(Strings.of([datum()])).status.any()
    assert schemas.program_for(EVENTS, ids[LABELS]) is Unusable.FOREIGN
    assert schemas.program_for(EVENTS, 99) is Unusable.UNKNOWN
    assert schemas.program_for(EVENTS, -1) is Unusable.UNKNOWN


def test_an_older_version_is_read_as_the_pinned_one() -> None:
    registry, _ = _registry()
    newer = {**FRAUD.event.avro, "fields": [*FRAUD.event.avro["fields"]]}
    newer["fields"].append({"name": "note", "type": ["null", "string"], "default": None, "doc": "A remark."})
    registry.register(f"{EVENTS}-value", newer)
    schemas = RegistrySchemas(registry, {EVENTS: newer}, lambda: 0.0)
    program = schemas.program_for(EVENTS, 1)
    assert isinstance(program, Program)
    batch = program.decode(Strings.of([datum()])).batch
    assert batch["note"].mask().tolist() == [False]


def test_a_version_that_cannot_be_read_is_told_apart() -> None:
    registry, ids = _registry()
    more = [*FRAUD.event.avro["fields"], {"name": "must", "type": "string", "doc": "No default."}]
    schemas = RegistrySchemas(registry, {EVENTS: {**FRAUD.event.avro, "fields": more}}, lambda: 0.0)
    assert schemas.program_for(EVENTS, ids[EVENTS]) is Unusable.INCOMPATIBLE


def test_refusals_are_asked_again_after_a_minute_and_decoders_never() -> None:
    registry, ids = _registry()
    now = [0.0]
    schemas = RegistrySchemas(registry, {EVENTS: FRAUD.event.avro}, lambda: now[0])
    for at in (0.0, MISS_TTL_S - 1, MISS_TTL_S):
        now[0] = at
        schemas.program_for(EVENTS, 99)
        schemas.program_for(EVENTS, ids[EVENTS])
    assert registry.asked == 3
    registry.away = True
    assert isinstance(schemas.program_for(EVENTS, ids[EVENTS]), Program)
    with pytest.raises(Retry):
        schemas.program_for(EVENTS, 98)


# The rest.


def test_join_keeps_rows_and_order() -> None:
    parts = [Strings.of([b"a", b""]), Strings.of([]), Strings.of([b"bc", b"d"]).take(np.array([1, 0]))]
    assert join(parts).to_list() == [b"a", b"", b"d", b"bc"]


def test_an_empty_queue_has_no_head() -> None:
    assert Queue().first_offset() is None


def test_metrics_keep_the_counts_of_units_that_are_gone() -> None:
    registry = CollectorRegistry()
    metrics = DoorMetrics.on(registry)
    one, two = Counts(), Counts()
    one.accepted["event"] = 3
    two.accepted["event"] = 4
    two.duplicates["label"] = 1
    metrics.watch(0, one)
    metrics.watch(0, two)
    text = generate_latest(registry).decode()
    assert 'millrace_ingest_accepted_total{kind="event"} 7.0' in text
    assert 'millrace_ingest_duplicates_total{kind="label"} 1.0' in text


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_INGEST__MAX_HEADERS", "7")
    monkeypatch.setenv("MILLRACE_INGEST__RUNTIME__FUSE_LIMIT", "9")
    settings = IngestSettings()
    assert (settings.limits.max_headers, settings.runtime.fuse_limit) == (7, 9)
    assert settings.limits.max_key_bytes == 1_024


def test_the_decoder_in_the_makers_is_the_pipelines() -> None:
    assert [spec.name for spec in EVENT.columns] == list(FRAUD.event.fields)
