"""The monitor's place in the log: nothing folded twice, nothing passed over, the state where it says it is."""

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.drift.core.clock import Clock
from services.drift.core.records import Alarm, LabeledRows, ProfileRow
from services.drift.rows import labeled_rows, probabilities, profile_row
from services.drift.service import Folding, Service, Topics
from services.drift.settings import DriftSettings
from shared.codec.batch import Column, Strings
from shared.errors import Fatal
from shared.runtime.polled import Polled
from shared.runtime.snapshots import pack, unpack
from shared.runtime.unit import Out
from shared.settings import PlatformSettings, StoreSettings
from tests.unit.drift import ledger

PIPELINE = ledger.learning()
LABELED, PROFILES, DRIFT = ledger.tables(PIPELINE)
TOPICS = Topics(LABELED, PROFILES, DRIFT)
PROMISED = "millrace_drift_promised_accuracy"
ALARMING = 9
"""Each profile of this unit raises an alarm."""


class Counting:
    """The smallest core whose state depends on all that it was given: it lists it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.clock = Clock()
        self.promised: dict[int, float] = {}

    def labeled(self, rows: LabeledRows) -> list[Alarm]:
        self.seen += [f"s{sequence}" for sequence in rows.sequence.tolist()]
        self.clock.step(rows.sequence, rows.order_time)
        wrong = rows.sequence[rows.label_class != rows.predicted_class]
        return [Alarm("performance", "any", "error", at, 0, at, 1.0, 0.0) for at in wrong.tolist()]

    def profile(self, row: ProfileRow) -> list[Alarm]:
        self.seen.append(f"p{row.unit}.{row.number}")
        place = f"{row.unit}.{row.number}"
        self.promised[row.unit] = 0.5 + row.number / 100
        alarm = Alarm("data", "any", "x", -1, row.order_time, -1, 1.0, 0.0, mark=place)
        return [alarm] if row.unit == ALARMING else []

    def passed(self, order_time: int) -> bool:
        return self.clock.passed(order_time)

    def dated(self, alarm: Alarm) -> Alarm:
        return replace(alarm, sequence=self.clock.newest(alarm.order_time))

    def snapshot(self) -> bytes:
        return ",".join(self.seen).encode()

    def restore(self, state: bytes) -> None:
        self.seen = state.decode().split(",")


def folding() -> Folding:
    return Folding(Counting(), TOPICS, PIPELINE.feature_names, 2)


def seen(fold: Folding) -> list[str]:
    assert isinstance(fold.core, Counting)
    return fold.core.seen


def outcomes(start: int, count: int, offset: int | None = None) -> Polled:
    """Rows of the ledger; every third offset is a transaction's marker."""
    batch = ledger.outcomes(PIPELINE, LABELED, np.zeros(count, np.int64), start)
    offsets = (
        np.arange(start, start + count) * 3 // 2 if offset is None else np.arange(offset, offset + count)
    )
    return ledger.polled(LABELED.topic, LABELED.write(batch), offsets)


def profiles(*places: tuple[int, int], offset: int = 0) -> Polled:
    values = [PROFILES.encode(ledger.profile(PIPELINE, number, unit)) for unit, number in places]
    return ledger.polled(PROFILES.topic, Strings.of(values), np.arange(offset, offset + len(values)))


def test_rows_that_were_folded_are_not_folded_again() -> None:
    fold = folding()
    fold.fold(outcomes(0, 10))
    again = fold.new(outcomes(5, 10))
    assert not fold.passed_over(again)
    fold.fold(again)
    assert seen(fold) == [f"s{n}" for n in range(15)]
    assert len(fold.new(outcomes(0, 15))) == 0


def test_markers_between_rows_are_no_gap() -> None:
    fold = folding()
    fold.fold(outcomes(0, 3))
    assert not fold.passed_over(fold.new(outcomes(3, 2, offset=900)))


def test_rows_that_were_passed_over_are_noticed() -> None:
    fold = folding()
    fold.fold(outcomes(0, 4))
    assert fold.passed_over(fold.new(outcomes(6, 2)))
    with pytest.raises(Fatal, match="goes on with sequence 6 where 4 must stand"):
        fold.fold(outcomes(6, 2))


def test_offsets_between_profiles_may_be_another_unit_s() -> None:
    """Profile 0.1 was acknowledged before a kill; 1.1, the first to come, tells nothing of it."""
    fold = folding()
    assert not fold.passed_over(profiles((0, 0), (1, 0)))
    fold.fold(profiles((0, 0), (1, 0)))
    assert fold.passed_over(profiles((1, 1), offset=3))
    assert not fold.passed_over(profiles((0, 1), offset=2))


def test_a_profile_that_is_gone_ends_the_process() -> None:
    fold = folding()
    fold.fold(profiles((0, 0), (1, 0), (0, 1)))
    with pytest.raises(Fatal, match=r"goes on with profile 2 of unit 1's features where 1 must stand"):
        fold.fold(profiles((1, 2), offset=3))


def test_profiles_of_another_size_or_from_the_beginning_are_counted_anew() -> None:
    """`profile_rows` was declared anew; the loop was undeclared and declared again."""
    fold = folding()
    fold.fold(profiles((0, 0), (0, 1)))
    smaller = {**ledger.profile(PIPELINE, 7, 0), "rows": 500}
    fold.fold(ledger.polled(PROFILES.topic, Strings.of([PROFILES.encode(smaller)]), np.array([2])))
    assert fold.place.profiles == {"features": {0: (8, 500)}}
    again = {**smaller, "number": 9}
    with pytest.raises(Fatal, match=r"goes on with profile 9 of unit 0's features where 8 must stand"):
        fold.fold(ledger.polled(PROFILES.topic, Strings.of([PROFILES.encode(again)]), np.array([3])))
    fold.fold(profiles((0, 0), offset=4))
    assert fold.place.profiles == {"features": {0: (1, 1_000)}}


def test_each_kind_of_profile_has_a_count_of_its_own() -> None:
    fold = folding()
    fold.fold(profiles((0, 0), (0, 1)))
    of_answers = {**ledger.profile(PIPELINE, 5, 0), "of": "answers", "model_version": 3}
    fold.fold(ledger.polled(PROFILES.topic, Strings.of([PROFILES.encode(of_answers)]), np.array([2])))
    assert fold.place.profiles == {"features": {0: (2, 1_000)}, "answers": {0: (6, 1_000)}}
    other = folding()
    other.restore(unpack(pack(fold.snapshot({LABELED.topic: "id"}))))
    assert other.place == fold.place


def test_a_log_may_begin_with_any_profile() -> None:
    """Profiles are kept for thirty days."""
    fold = folding()
    fold.fold(profiles((0, 17), (1, 16), (0, 18), offset=40))
    assert fold.place.profiles == {"features": {0: (19, 1_000), 1: (17, 1_000)}}


def test_an_alarm_of_a_profile_is_held_until_the_ledger_has_passed_its_time() -> None:
    """Outcomes are a minute apart; the profile ends at 61.999 s."""
    fold = folding()
    assert fold.fold(profiles((ALARMING, 61))) == []
    assert fold.fold(outcomes(0, 2)) == []
    assert len(fold.held) == 1
    (alarm,) = fold.fold(outcomes(2, 5))
    assert (alarm.id, alarm.sequence) == ("data/any/x/9.61", 1)
    assert fold.held == []


def test_of_a_ledger_that_is_further_an_alarm_is_told_at_once() -> None:
    fold = folding()
    fold.fold(outcomes(0, 7))
    (alarm,) = fold.fold(profiles((ALARMING, 61)))
    assert alarm.sequence == 1


def test_what_is_held_may_be_told_with_what_is_known() -> None:
    fold = folding()
    fold.fold(outcomes(0, 1))
    assert fold.fold(profiles((0, 0), (ALARMING, 61))) == []
    assert [alarm.sequence for alarm in fold.release()] == [0]
    assert fold.release() == []


class Loop:
    """As much of the loop as the service sees; `told` is what it published."""

    def __init__(self, snapshots: Path) -> None:
        platform = PlatformSettings(store=StoreSettings(snapshots=str(snapshots)))
        self.start = SimpleNamespace(platform=platform, pipeline=PIPELINE, metrics=CollectorRegistry())
        self.leaving = False
        self.told: list[tuple[str, int]] = []

    async def publish(self, outs: list[Out]) -> None:
        records = [DRIFT.decode(value) for out in outs for value in out.values.to_list()]
        self.told += [(record["id"], record["sequence"]) for record in records]


class Begun(Service):
    """A service that has no broker to ask where to begin."""

    def _begin(self) -> None:
        self._begun = True


def service(loop: Loop, **settings: float) -> Service:
    return Begun(cast(Any, loop), Counting, TOPICS, DriftSettings.model_validate(settings))


def test_the_newest_promise_is_shown(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    asyncio.run(service(loop).take(profiles((0, 0), (1, 0), (0, 1))))
    shown = [loop.start.metrics.get_sample_value(PROMISED, {"unit": unit}) for unit in ("0", "1")]
    assert shown == [0.51, 0.5]


def test_a_profile_is_done_once_its_alarm_is_told(tmp_path: Path) -> None:
    async def story() -> list[tuple[str, int]]:
        loop = Loop(tmp_path)
        made = service(loop, ledger_wait_s=60.0)
        profile = asyncio.create_task(made.take(profiles((ALARMING, 61))))
        await made.take(outcomes(0, 2))
        await asyncio.sleep(0.1)
        assert not profile.done()
        await made.take(outcomes(2, 5))
        assert loop.told, "the ledger's rows are acknowledged behind the alarms that they date"
        await asyncio.wait_for(profile, 5.0)
        return loop.told

    assert asyncio.run(story()) == [("data/any/x/9.61", 1)]


def test_a_ledger_that_stands_still_keeps_no_alarm_back(tmp_path: Path) -> None:
    async def story() -> list[tuple[str, int]]:
        loop = Loop(tmp_path)
        made = service(loop, ledger_wait_s=0.1)
        await made.take(outcomes(0, 1))
        await asyncio.wait_for(made.take(profiles((ALARMING, 61))), 5.0)
        return loop.told

    assert asyncio.run(story()) == [("data/any/x/9.61", 0)]


def test_asked_to_leave_it_lets_a_held_profile_come_again(tmp_path: Path) -> None:
    async def story() -> list[tuple[str, int]]:
        loop = Loop(tmp_path)
        made = service(loop, ledger_wait_s=60.0)
        profile = asyncio.create_task(made.take(profiles((ALARMING, 61))))
        await asyncio.sleep(0.1)
        loop.leaving = True
        await asyncio.wait([profile], timeout=5.0)
        assert profile.cancelled()
        made.save()
        return loop.told

    assert asyncio.run(story()) == []
    assert list(tmp_path.iterdir()) == [], "a state that has folded the profile would pass it over"


def test_state_and_place_are_restored_together() -> None:
    fold, other = folding(), folding()
    fold.fold(outcomes(0, 7))
    fold.fold(profiles((0, 0), (1, 0)))
    other.restore(unpack(pack(fold.snapshot({LABELED.topic: "id"}))))
    assert other.place == fold.place
    assert seen(other) == seen(fold)
    assert len(other.new(outcomes(0, 7))) == 0


def test_rows_in_the_core_s_form() -> None:
    roles = Strings.of([b"champion", b"shadow", b"canary", b"champion"])
    batch = ledger.outcomes(
        PIPELINE, LABELED, np.array([0, 1, 0, 1]), role=roles, kind=np.array([0, 0, 2, 3], np.int32)
    )
    rows = labeled_rows(
        LABELED.program.decode(LABELED.program.encode(batch)).batch, PIPELINE.feature_names, 2
    )
    assert rows.sequence.tolist() == [0, 2, 3]
    assert rows.champion is not None
    assert rows.champion.tolist() == [True, False, True]
    assert rows.kind is not None
    assert rows.kind.tolist() == [0, 2, 3]
    assert rows.probabilities is None
    assert (rows.label_class == rows.predicted_class).tolist() == [True, True, False]
    for at, name in enumerate(PIPELINE.feature_names):
        np.testing.assert_array_equal(rows.features[:, at], batch[f"features.{name}"].array[[0, 2, 3]])


def test_probabilities_of_many_classes() -> None:
    matrix = np.random.default_rng(2).random((5, 12))
    rows = [b"\x18" + row.astype("<f8").tobytes() + b"\0" for row in matrix]
    np.testing.assert_array_equal(probabilities(Column(Strings.of(rows)), 12), matrix)
    with pytest.raises(Fatal, match="does not have 3 probabilities"):
        probabilities(Column(Strings.of(rows)), 3)


def test_a_profile_in_the_core_s_form() -> None:
    (record,) = PROFILES.read(profiles((3, 8)))
    row = profile_row(record)
    assert (row.unit, row.number, row.rows, row.order_time) == (3, 8, 1_000, 8_999)
    assert row.names == PIPELINE.feature_names
    assert row.columns[0].buckets.tolist() == [4092, 4096]
    assert int(row.columns[0].counts.sum()) == 1_000


def test_an_alarm_fits_its_topic() -> None:
    alarm = Alarm("data", "psi", "x", 5, 6, 4, 0.5, 0.2, {"a": 1}, {"a": 2}, True, "moved", "0.3")
    assert DRIFT.decode(DRIFT.encode(alarm.record())) == alarm.record()
