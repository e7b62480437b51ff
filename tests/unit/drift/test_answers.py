"""Answers that move are noticed as they are given: no outcome is needed, and surer answers are no bad news."""

import json
from dataclasses import replace

import numpy as np
import pytest

from services.drift.core.answers import Answers
from services.drift.core.monitor import Monitor
from services.drift.core.profiles import Moved
from services.drift.core.records import Alarm, ProfileRow
from services.drift.rows import profile_row
from services.feedback.core.answers import NAMES, answer_columns
from shared.codec.batch import Floats, Ints
from shared.contracts.policies import DriftPolicy
from shared.profiling import ANSWERS, Profiler
from tests.unit.drift.streams import FEATURES, rows

EVERY = 1_000


def scores(count: int, seed: int, unsure: float = 0.0) -> Floats:
    """Probabilities of the positive class; `unsure` pulls them to one half."""
    return 0.5 + (np.random.default_rng(seed).beta(0.5, 0.5, count) - 0.5) * (1 - unsure)


def answers(
    said: Floats,
    unit: int = 0,
    version: int = 1,
    first: int = 0,
    classes: int = 2,
    predicted: Ints | None = None,
) -> list[ProfileRow]:
    """What feedback would say of these answers, a second apart."""
    profiler = Profiler(unit, NAMES, np.full(len(NAMES), np.nan), EVERY)
    chosen = (said >= 0.5).astype(np.int64) if predicted is None else predicted
    found = profiler.step(answer_columns(said, chosen, classes), 1_000 * np.arange(len(said)))
    told = [profile_row({**each, "of": ANSWERS, "model_version": version}) for each in found]
    return [replace(each, number=each.number + first) for each in told]


def moved(*parts: list[ProfileRow]) -> list[Moved]:
    watched = Answers(1_000, 1e6)
    return [each for part in parts for row in part for each in watched.step(row)]


def of_monitor(*parts: list[ProfileRow], **policy: object) -> list[Alarm]:
    monitor = Monitor(DriftPolicy.model_validate(policy), FEATURES, 2)
    return [alarm for part in parts for row in part for alarm in monitor.profile(row)]


def test_scores_that_move_are_noticed_without_any_outcome() -> None:
    found = of_monitor(answers(scores(8_000, 1)), answers(scores(2_000, 2, unsure=0.8), first=8))
    assert {(alarm.family, alarm.triggers) for alarm in found} == {("prediction", False)}
    assert {alarm.subject for alarm in found} == {"score", "confidence"}
    assert all(alarm.id == f"prediction/{alarm.detector}/{alarm.subject}/0.8" for alarm in found)
    assert all(alarm.magnitude > alarm.threshold > 0 for alarm in found)
    (score,) = [alarm for alarm in found if alarm.subject == "score"]
    shown = json.loads(score.record()["reference"])
    assert all(0.0 < edge < 1.0 for edge in shown["edges"])


def test_evidence_counts_what_its_edges_say() -> None:
    """Scores below one half are negative log-odds."""
    calm = np.random.default_rng(1).uniform(0.03, 0.3, 8_000)
    (score, *_) = [
        each for each in moved(answers(calm), answers(1 - calm[:1_000], first=8)) if each.subject == "score"
    ]
    edges, counts = score.reference["edges"], score.reference["counts"]
    assert edges == sorted(edges)
    for at, edge in enumerate(edges):
        assert sum(counts[: at + 1]) == np.count_nonzero(calm < edge)


@pytest.mark.parametrize("sure", [0.9994, 0.0006])
def test_all_answers_turning_to_the_other_end_are_noticed(sure: float) -> None:
    noise = np.random.default_rng(2).normal(scale=1e-5, size=(2, 25_000))
    found = moved(answers(sure + noise[0]), answers(1 - sure + noise[1][:1_000], first=25))
    assert {each.subject for each in found} == {"score", "predicted"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([0.05, 0.95], [0.6, 0.4]),
        ([0.95, 0.05], [0.4, 0.6]),
        ([0.05, 0.94, 0.01], [0.6, 0.39, 0.01]),
        ([0.0, 0.99, 0.01], [0.6, 0.39, 0.01]),
        ([0.01, 0.94, 0.05], [0.01, 0.39, 0.6]),
        ([0.005, 0.99, 0.005], [0.1, 0.895, 0.005]),
        ([1 / 12] * 12, [1 / 12] * 8 + [2 / 12, 0.0, 1 / 12, 1 / 12]),
    ],
)
def test_predicted_classes_that_move_are_noticed(before: list[float], after: list[float]) -> None:
    """The same confidence, but for other classes."""
    rng = np.random.default_rng(3)
    said = rng.uniform(0.6, 0.9, 26_000)
    calm, now = (rng.choice(len(p), size, p=p) for p, size in ((before, 25_000), (after, 1_000)))
    parts = (
        answers(said[:25_000], classes=3, predicted=calm),
        answers(said[25_000:], classes=3, predicted=now, first=25),
    )
    (found,) = moved(*parts)
    assert found.subject == "predicted"
    assert set(found.reference["edges"]) <= set(range(len(before)))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_promise_that_falls_is_told(classes: int) -> None:
    """All answers a little less sure, within a bucket of their log-odds."""
    rng = np.random.default_rng(0)
    before = rng.normal(0.918, 0.002, 20_000)
    now = rng.normal(0.91, 0.002, 1_000)
    (found,) = moved(answers(before, classes=classes), answers(now, first=20, classes=classes))
    assert (found.detector, found.subject) == ("promised_accuracy", "confidence")
    assert found.detail == "accuracy that the answers promise: 91.8% before, 91.0% now"
    assert found.statistic == pytest.approx(before.mean() - now.mean(), abs=1e-6)


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


def test_stationary_answers_keep_to_the_budget() -> None:
    """A million of them are what one false alarm was allowed for."""
    assert len(moved(answers(scores(1_000_000, 3)))) <= 1


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_a_constant_answer_raises_nothing(score: float) -> None:
    assert moved(answers(np.full(30_000, score))) == []


@pytest.mark.parametrize("unsure", [0.0, 0.8])
def test_the_promise_of_a_calibrated_model_is_its_accuracy(unsure: float) -> None:
    said = scores(50_000, 4, unsure)
    watched = Answers(1_000, 1e6)
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
    (alarm, *_) = [each for row in told for each in monitor.profile(row)]
    assert (alarm.sequence, alarm.since_sequence) == (-1, -1)
    monitor.labeled(rows(0.05, 2_000))
    assert monitor.passed(alarm.order_time)
    dated = monitor.dated(alarm)
    assert (dated.since_sequence, dated.sequence) == (0, 999)


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
