"""Answers that move are noticed as they are given: no outcome is needed, and surer answers are no bad news."""

import json
from dataclasses import replace

import numpy as np
import pytest

from services.drift.core.answers import Answers
from services.drift.core.monitor import Monitor
from services.drift.core.profiles import Moved
from services.drift.core.records import ANSWERS, Alarm, ProfileRow
from services.drift.rows import profile_row
from services.feedback.core.answers import NAMES, log_odds
from shared.codec.batch import Floats
from shared.contracts.policies import DriftPolicy
from shared.profiling import Profiler
from tests.unit.drift.streams import FEATURES, rows

EVERY = 1_000


def scores(count: int, seed: int, unsure: float = 0.0) -> Floats:
    """Probabilities of the positive class; `unsure` pulls them to one half."""
    return 0.5 + (np.random.default_rng(seed).beta(0.5, 0.5, count) - 0.5) * (1 - unsure)


def answers(said: Floats, unit: int = 0, version: int = 1, first: int = 0) -> list[ProfileRow]:
    """What feedback would say of these answers, a second apart."""
    profiler = Profiler(unit, NAMES, np.full(2, np.nan), EVERY)
    matrix = np.stack([log_odds(said), (said >= 0.5) * 1.0], axis=1)
    found = profiler.step(matrix, 1_000 * np.arange(len(said)))
    told = [profile_row({**each, "of": ANSWERS, "model_version": version}) for each in found]
    return [replace(each, number=each.number + first) for each in told]


def moved(*parts: list[ProfileRow]) -> list[Moved]:
    watched = Answers(2, 1_000, 1e6)
    return [each for part in parts for row in part for each in watched.step(row)]


def of_monitor(*parts: list[ProfileRow], **policy: object) -> list[Alarm]:
    monitor = Monitor(DriftPolicy.model_validate(policy), FEATURES, 2)
    return [alarm for part in parts for row in part for alarm in monitor.profile(row)]


def test_scores_that_move_are_noticed_without_any_outcome() -> None:
    (alarm,) = of_monitor(answers(scores(8_000, 1)), answers(scores(2_000, 2, unsure=0.8), first=8))
    assert (alarm.family, alarm.subject, alarm.triggers) == ("prediction", "score", False)
    assert alarm.id == f"prediction/{alarm.detector}/score/0.8"
    assert alarm.magnitude > alarm.threshold > 0
    assert "accuracy that the answers promise: 8" in alarm.detail
    shown = json.loads(alarm.record()["reference"])["edges"]
    assert all(0.0 < edge < 1.0 for edge in shown)


def test_predicted_classes_that_move_are_noticed() -> None:
    """The same confidence, but for the other class."""
    calm, other = scores(8_000, 1), scores(2_000, 2)
    (found, *_) = moved(answers(calm), answers(np.maximum(other, 1 - other), first=8))
    assert {
        each.subject for each in moved(answers(calm), answers(np.maximum(other, 1 - other), first=8))
    } == {
        "score",
        "predicted",
    }
    assert found.statistic > found.threshold


@pytest.mark.parametrize("classes", [2, 4])
def test_a_promise_that_falls_is_told(classes: int) -> None:
    """A fifth of the answers is less sure: too little for a test of the whole distribution."""
    rng = np.random.default_rng(0)
    before, unsure = rng.uniform(0.5, 1.0, 20_000), rng.random(1_000) < 0.2
    now = np.where(unsure, rng.uniform(0.5, 0.75, 1_000), rng.uniform(0.5, 1.0, 1_000))
    watched = Answers(classes, 1_000, 1e6)
    for row in answers(before):
        assert watched.step(row) == []
    (found,) = [each for row in answers(now, first=20) for each in watched.step(row)]
    assert (found.detector, found.subject) == ("promised_accuracy", "score")
    assert found.detail == "accuracy that the answers promise: 75.2% before, 72.1% now"


def test_surer_answers_are_no_fallen_promise() -> None:
    found = moved(answers(scores(8_000, 1, unsure=0.5)), answers(scores(2_000, 2), first=8))
    assert found
    assert all(each.detector != "promised_accuracy" for each in found)


def test_another_version_begins_anew() -> None:
    calm, other = answers(scores(8_000, 1)), answers(scores(4_000, 2, unsure=0.8), version=2, first=8)
    assert moved(calm, other) == []
    assert moved(calm, [replace(row, model_version=1) for row in other]) != []


def test_units_have_pasts_of_their_own() -> None:
    sure, unsure = answers(scores(6_000, 1)), answers(scores(6_000, 2, unsure=0.8), unit=1)
    mixed = [row for pair in zip(sure, unsure, strict=True) for row in pair]
    assert moved(mixed) == []


def test_stationary_answers_raise_nothing() -> None:
    assert moved(answers(scores(300_000, 3))) == []


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_a_constant_answer_raises_nothing(score: float) -> None:
    assert moved(answers(np.full(30_000, score))) == []


@pytest.mark.parametrize("unsure", [0.0, 0.8])
def test_the_promise_of_a_calibrated_model_is_its_accuracy(unsure: float) -> None:
    said = scores(50_000, 4, unsure)
    watched = Answers(2, 1_000, 1e6)
    promises = []
    for row in answers(said):
        watched.step(row)
        promises.append(watched.promised[0])
    truth = np.random.default_rng(5).random(50_000) < said
    assert np.mean(promises) == pytest.approx(np.mean(truth == (said >= 0.5)), abs=0.01)


def test_who_does_not_watch_answers_hears_nothing_of_them() -> None:
    told = answers(scores(8_000, 1)), answers(scores(2_000, 2, unsure=0.8), first=8)
    assert of_monitor(*told, families=["performance", "data"]) == []
    assert {each.family for each in of_monitor(*told, families=["prediction"], triggers=["prediction"])} == {
        "prediction"
    }
    assert all(each.triggers for each in of_monitor(*told, triggers=["prediction"]))


def test_an_alarm_of_answers_is_dated_by_their_time() -> None:
    monitor = Monitor(DriftPolicy(), FEATURES, 2)
    told = answers(scores(8_000, 1)) + answers(scores(1_000, 2, unsure=0.8), first=8)
    (alarm,) = [each for row in told for each in monitor.profile(row)]
    assert alarm.sequence == -1
    monitor.labeled(rows(0.05, 2_000))
    assert monitor.passed(alarm.order_time)
    assert monitor.dated(alarm).sequence == alarm.order_time // 1_000


@pytest.mark.parametrize("cut", [2, 8, 9])
def test_a_restart_changes_nothing(cut: int) -> None:
    told = answers(scores(8_000, 1)) + answers(scores(6_000, 2, unsure=0.8), version=1, first=8)
    told += answers(scores(4_000, 3), version=2, first=14)
    one, other = (Monitor(DriftPolicy(), FEATURES, 2) for _ in range(2))
    head = [each for row in told[:cut] for each in one.profile(row)]
    other.restore(one.snapshot())
    rest = [each for row in told[cut:] for each in other.profile(row)]
    assert rest == [each for row in told[cut:] for each in one.profile(row)]
    assert other.snapshot() == one.snapshot()
    assert head + rest == of_monitor(told)
