"""The monitor's promises: a rise is found, good news is none, a promotion is none, and nothing divides by zero."""

from dataclasses import replace

import numpy as np
import pytest

from services.drift.__main__ import make_monitor
from services.drift.core.monitor import Monitor
from services.drift.core.records import CORRECTION, LATE, MISSING, Alarm, LabeledRows
from shared.contracts.policies import DriftPolicy
from shared.contracts.tables import ExpressionFeature
from tests.unit.drift import ledger
from tests.unit.drift.streams import FEATURES, joined, profiles, rows


def monitor(classes: int = 2, **policy: object) -> Monitor:
    return Monitor(DriftPolicy.model_validate(policy), FEATURES, classes)


def of(alarms: list[Alarm], family: str) -> list[Alarm]:
    return [alarm for alarm in alarms if alarm.family == family]


def test_a_rise_is_found_dated_and_explained() -> None:
    (alarm,) = monitor().labeled(joined(rows(0.05, 3_000), rows(0.25, 500, 3_000)))
    assert alarm.family == "performance"
    assert alarm.subject == "error"
    assert 3_000 < alarm.sequence < 3_200
    assert abs(alarm.since_sequence - 3_000) < 40
    assert alarm.order_time == alarm.sequence * 1_000
    assert alarm.magnitude > alarm.threshold > 0
    assert alarm.triggers
    assert alarm.id == f"performance/{alarm.detector}/error/{alarm.sequence}"
    record = alarm.record()
    assert record["reference"].startswith('{"bins": ["right", "wrong"], "counts": [')
    assert record["detail"].startswith("errors of version 1 rose from ")


def test_falling_errors_are_good_news() -> None:
    alarms = monitor(families=["performance"]).labeled(joined(rows(0.4, 3_000), rows(0.05, 3_000, 3_000)))
    assert alarms == []


def test_one_change_is_one_alarm() -> None:
    """The new rate is what is usual from then on."""
    alarms = monitor().labeled(joined(rows(0.05, 2_000), rows(0.4, 6_000, 2_000)))
    assert len(of(alarms, "performance")) == 1


def test_the_quiet_period_holds() -> None:
    stream = joined(rows(0.02, 1_000), rows(0.2, 400, 1_000), rows(0.9, 1_000, 1_400))
    at = [a.sequence for a in monitor(quiet=800, families=["performance"]).labeled(stream)]
    assert len(at) == 2
    assert at[1] - at[0] > 800


@pytest.mark.parametrize("after", [0.02, 0.1, 0.3])
def test_a_promotion_is_no_alarm(after: float) -> None:
    """A version that errs no more than the one before becomes its own reference."""
    stream = joined(rows(0.3, 2_000), rows(after, 2_000, 2_000, version=2))
    assert monitor(families=["performance"]).labeled(stream) == []


def test_promotions_spend_no_more_false_alarms() -> None:
    """A hundred of them, each behind 600 rows: what one budget allows of 60,000 rows."""
    parts = [rows(0.2, 600, 600 * n, version=n, seed=n) for n in range(1, 101)]
    watched = monitor(families=["performance"], false_alarm_every=60_000)
    assert len([alarm for part in parts for alarm in watched.labeled(part)]) <= 1


@pytest.mark.parametrize("own", [0, 26, 90, 200])
def test_a_world_that_changes_right_behind_a_promotion_is_noticed(own: int) -> None:
    """The new version's own first rows cannot say that it errs more than is usual: those of the last one can."""
    changed = 2_000 + own
    new = [rows(0.08, own, 2_000, version=2)] if own else []
    stream = joined(rows(0.1, 2_000), *new, rows(0.4, 1_000, changed, version=2, seed=1))
    (alarm,) = monitor(families=["performance"]).labeled(stream)
    assert changed < alarm.sequence < changed + 150
    assert abs(alarm.since_sequence - changed) < 40


def test_a_restart_right_behind_a_promotion_changes_nothing() -> None:
    stream = joined(rows(0.1, 2_000), rows(0.4, 300, 2_000, version=2))
    (expected,) = monitor(families=["performance"]).labeled(stream)
    first, second = stream.take(np.arange(2_040)), stream.take(np.arange(2_040, 2_300))
    watched, anew = monitor(families=["performance"]), monitor(families=["performance"])
    assert watched.labeled(first) == []
    anew.restore(watched.snapshot())
    assert anew.labeled(second) == [expected]


def test_late_outcomes_of_the_last_version_are_passed_over() -> None:
    fresh, stale = rows(0.05, 3_000, version=2), rows(0.9, 3_000, version=1)
    old = np.arange(3_000) % 3 == 1
    mixed = LabeledRows(
        *(
            np.where(old if a.ndim == 1 else old[:, None], b, a)
            for a, b in (
                (getattr(fresh, name), getattr(stale, name))
                for name in (
                    "sequence",
                    "order_time",
                    "label_class",
                    "predicted_class",
                    "score",
                    "features",
                    "model_version",
                )
            )
        )
    )
    assert monitor().labeled(mixed) == []


@pytest.mark.parametrize("kind", [LATE, CORRECTION])
def test_a_revised_outcome_is_not_counted_again(kind: int) -> None:
    bad = rows(1.0, 1_000, 2_000)
    watched = monitor()
    watched.labeled(rows(0.05, 2_000))
    assert watched.labeled(replace(bad, kind=np.full(1_000, kind))) == []
    assert watched.labeled(replace(bad, kind=np.full(1_000, MISSING))) != []


def test_a_canary_is_passed_over() -> None:
    watched = monitor()
    watched.labeled(rows(0.05, 2_000))
    canary = replace(rows(1.0, 1_000, 2_000, version=2), champion=np.zeros(1_000, np.bool_))
    assert watched.labeled(canary) == []
    assert watched.labeled(rows(0.05, 1_000, 3_000)) == []


def constant(count: int, label: int, score: float, feature: float) -> LabeledRows:
    sequence = np.arange(count)
    return LabeledRows(
        sequence,
        sequence,
        np.full(count, label),
        np.full(count, int(score >= 0.5)),
        np.full(count, score),
        np.full((count, 3), feature),
        np.ones(count, np.int64),
    )


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("feature", [0.0, 7.5, np.nan, np.inf, -np.inf, 1e308])
def test_a_constant_stream_raises_nothing(label: int, score: float, feature: float) -> None:
    watched = monitor()
    stream = constant(5_000, label, score, feature)
    assert watched.labeled(stream) == []
    assert [a for row in profiles(stream.features) for a in watched.profile(row)] == []


@pytest.mark.parametrize("classes", [3, 12])
def test_a_single_class_of_many_raises_nothing(classes: int) -> None:
    stream = constant(4_000, 1, 0.9, 0.0)
    chances = np.zeros((4_000, classes))
    chances[:, 1] = 1.0
    assert monitor(classes).labeled(replace(stream, probabilities=chances)) == []


def test_values_that_are_no_number_are_not_an_alarm_storm() -> None:
    stream = rows(0.1, 8_000)
    stream.features[3_000:, 1] = np.nan
    stream.features[4_000:, 2] = 1e300
    stream.score[5_000:5_100] = np.nan
    assert len(monitor().labeled(stream)) <= 3


def test_a_class_outside_of_the_declared_ones_is_an_error_like_any() -> None:
    stream = rows(0.05, 3_000)
    stream.label_class[2_500:] = 9
    stream.predicted_class[2_800:] = -1
    assert len(of(monitor().labeled(stream), "performance")) == 1


def test_no_rows_are_no_work() -> None:
    assert monitor().labeled(rows(0.1, 0)) == []


def test_only_declared_families_look_and_only_declared_ones_trigger() -> None:
    stream = joined(rows(0.05, 3_000), rows(0.3, 2_000, 3_000, shift=2.0))
    alone = monitor(families=["data"], triggers=["data"]).labeled(stream)
    assert {(alarm.family, alarm.triggers) for alarm in alone} == {("data", True)}
    assert not any(
        alarm.triggers for alarm in monitor(triggers=["data"]).labeled(stream) if alarm.family != "data"
    )


def test_a_larger_budget_is_a_sooner_alarm() -> None:
    stream = joined(rows(0.1, 2_000), rows(0.2, 1_500, 2_000))
    often, rarely = (monitor(false_alarm_every=n).labeled(stream)[0].sequence for n in (2_000, 10_000_000))
    assert often < rarely


@pytest.mark.parametrize("ahead", [0, 2_500, 4_100, 6_000])
def test_an_alarm_of_a_profile_is_dated_by_its_time_not_by_what_was_read_first(ahead: int) -> None:
    """Outcomes stand at a second each, vectors too; the third profile of a moved world ends at 4,999."""
    outcomes = rows(0.05, 6_000)
    vectors = outcomes.features + np.where(np.arange(6_000) >= 4_000, 3.0, 0.0)[:, None]
    records = [
        replace(row, first_order_time=row.first_order_time * 1_000, order_time=row.order_time * 1_000)
        for row in profiles(vectors)
    ]
    watched = monitor(families=["data"])
    watched.labeled(outcomes.take(slice(0, ahead)))
    found = [alarm for row in records for alarm in watched.profile(row)]
    watched.labeled(outcomes.take(slice(ahead, None)))
    assert found
    assert {alarm.order_time for alarm in found} == {4_999_000}
    assert watched.passed(4_999_000)
    assert {(each.sequence, each.since_sequence) for each in map(watched.dated, found)} == {(4_999, 4_000)}


def test_declared_categories_are_watched() -> None:
    pipeline = ledger.learning()
    features = (ExpressionFeature(name="kind", expression="1", categories=7),)
    policy = pipeline.policy.model_copy(update={"drift": DriftPolicy.model_validate({"reference": 300})})
    watched = make_monitor(pipeline.model_copy(update={"features": features, "policy": policy}))
    codes = np.random.default_rng(1).integers(0, 8, (6_000, 1)).astype(np.float64)
    records = [replace(row, names=("kind",)) for row in profiles(codes)]
    (alarm,) = [alarm for row in records for alarm in watched.profile(row)]
    assert (alarm.detector, alarm.subject) == ("unseen", "kind")


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="not a state of the drift monitor"):
        monitor().restore(b"[]")


def test_stationary_events_raise_nothing() -> None:
    watched = monitor()
    alarms = [a for at in range(0, 60_000, 5_000) for a in watched.labeled(rows(0.08, 5_000, at, seed=4))]
    assert alarms == []
