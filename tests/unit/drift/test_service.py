"""The monitor's place in the log: nothing folded twice, nothing passed over, the state where it says it is."""

import numpy as np
import pytest

from services.drift.core.records import Alarm, LabeledRows, ProfileRow
from services.drift.rows import labeled_rows, probabilities, profile_row
from services.drift.service import Folding, Topics
from shared.codec.batch import Column, Strings
from shared.errors import Fatal
from shared.runtime.polled import Polled
from shared.runtime.snapshots import pack, unpack
from tests.unit.drift import ledger

PIPELINE = ledger.learning()
LABELED, PROFILES, DRIFT = ledger.tables(PIPELINE)
TOPICS = Topics(LABELED, PROFILES, DRIFT)


class Counting:
    """The smallest core whose state depends on all that it was given: it lists it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def labeled(self, rows: LabeledRows) -> list[Alarm]:
        self.seen += [f"s{sequence}" for sequence in rows.sequence.tolist()]
        wrong = rows.sequence[rows.label_class != rows.predicted_class]
        return [Alarm("performance", "any", "error", at, 0, at, 1.0, 0.0) for at in wrong.tolist()]

    def profile(self, row: ProfileRow) -> list[Alarm]:
        self.seen.append(f"p{row.unit}.{row.number}")
        return []

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
    with pytest.raises(Fatal, match=r"goes on with profile 2 of unit 1 where 1 must stand"):
        fold.fold(profiles((1, 2), offset=3))


def test_a_log_may_begin_with_any_profile() -> None:
    """Profiles are kept for thirty days."""
    fold = folding()
    fold.fold(profiles((0, 17), (1, 16), (0, 18), offset=40))
    assert fold.place.profiles == {0: 19, 1: 17}


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
