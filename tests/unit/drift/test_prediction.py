"""The prediction family: scores that move are noticed; the accuracy that they promise is close to the true one."""

import numpy as np
import pytest
from scipy.stats import ks_2samp  # type: ignore[import-untyped]

from services.drift.core.monitor import judge
from services.drift.core.performance import Judged
from services.drift.core.scores import CURRENT, EVERY, Estimate, Prediction, Shift, ks_distance, rising
from shared.codec.batch import Floats
from tests.unit.drift.streams import rows


def calibrated(rows: int, seed: int, unsure: float = 0.0, start: int = 0) -> tuple[Judged, Floats]:
    """Answers that are right as often as their confidence says; `unsure` pulls them to one half."""
    random = np.random.default_rng(seed)
    score = 0.5 + (random.beta(0.5, 0.5, rows) - 0.5) * (1 - unsure)
    label = (random.random(rows) < score).astype(np.int64)
    predicted = (score >= 0.5).astype(np.int64)
    confidence = np.maximum(score, 1 - score)
    wrong = (label != predicted).astype(np.uint8)
    return Judged(wrong, wrong * 1.0, confidence, predicted, np.arange(start, start + rows)), score


def told(*parts: tuple[Judged, Floats], quiet: int = 0) -> list[Shift]:
    watched = Prediction(2, 1_000, quiet, 1e6)
    return [shift for judged, scores in parts for shift in watched.step(judged, scores)]


def test_scores_that_move_are_noticed() -> None:
    (shift,) = told(calibrated(2_000, 1), calibrated(1_500, 2, unsure=0.8, start=2_000))
    assert shift.row <= CURRENT
    assert shift.subject == "score"
    assert shift.statistic > shift.threshold
    assert shift.detail.startswith("accuracy estimated without labels: ")
    assert sum(shift.reference["counts"]) == 1_000
    assert sum(shift.current["counts"]) == CURRENT


def test_predicted_classes_that_move_are_noticed() -> None:
    judged, _ = calibrated(4_000, 1)
    fixed = np.full(4_000, 0.5)
    predicted = np.where(np.arange(4_000) < 3_000, judged.predicted, 1)
    moved = Judged(judged.errors, judged.losses, fixed, predicted, judged.sequence)
    assert [shift.subject for shift in told((moved, fixed))] == ["predicted"]


def test_a_model_that_grows_surer_falls_in_no_estimate() -> None:
    shifts = told(calibrated(2_000, 1, unsure=0.5), calibrated(1_000, 2, start=2_000))
    assert all(shift.detector != "estimated_accuracy" for shift in shifts)


def test_stationary_scores_raise_nothing() -> None:
    assert told(calibrated(100_000, 3)) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_estimate_follows_the_true_accuracy(seed: int) -> None:
    reference, _ = calibrated(5_000, seed)
    later, _ = calibrated(5_000, seed + 10, unsure=0.5)
    estimate = Estimate(reference.confidence, (1.0 - reference.errors).astype(np.float64))
    assert float(estimate.of(later.confidence).mean()) == pytest.approx(1 - later.errors.mean(), abs=0.03)


def test_its_own_error_is_tracked_and_gives_it_room() -> None:
    watched = Prediction(2, 1_000, 0, 1e6)
    judged, scores = calibrated(2_000, 1)
    assert np.isnan(watched.error)
    watched.step(judged, scores)
    assert 0.0 <= watched.error < 0.05
    wrong, scores = calibrated(200, 2)
    everything = Judged(
        np.ones(200, np.uint8), wrong.losses, wrong.confidence, wrong.predicted, wrong.sequence
    )
    before = watched.error
    watched.step(everything, scores)
    assert watched.error > before + 0.01


def test_the_quiet_period_holds() -> None:
    parts = [calibrated(2_000, i, unsure=0.9 * (i % 2), start=2_000 * i) for i in range(4)]
    assert len(told(*parts)) == 3
    assert len(told(*parts, quiet=50_000)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    before, after = np.sort(random.integers(0, 20, 300) / 20), random.integers(0, 18, 120) / 18
    assert ks_distance(before, after) == pytest.approx(ks_2samp(before, after).statistic)


def test_empty_bins_join_their_neighbours() -> None:
    assert rising(np.array([0.0, 3.0, 0.0, 4.0]), np.array([0.0, 6.0, 0.0, 4.0])).tolist() == [0.5] * 3 + [
        1.0
    ]


def test_looks_come_every_hundred_rows_however_they_are_cut() -> None:
    judged, scores = calibrated(3_000, 1)
    other, late = calibrated(1_000, 2, unsure=0.9, start=3_000)
    whole = told((judged, scores), (other, late))
    watched = Prediction(2, 1_000, 0, 1e6)
    watched.step(judged, scores)
    pieces = [
        (at + shift.row, shift.statistic)
        for at in range(0, 1_000, 7)
        for shift in watched.step(other.take(slice(at, at + 7)), late[at : at + 7])
    ]
    assert pieces == [(shift.row, shift.statistic) for shift in whole]
    assert (whole[0].row + 1) % EVERY == 0


def test_a_state_is_taken_up_under_a_smaller_reference() -> None:
    before, after = Prediction(2, 1_000, 0, 1e6), Prediction(2, 500, 0, 1e6)
    before.step(*calibrated(2_000, 1))
    after.load(before.state())
    (shift,) = after.step(*calibrated(600, 2, unsure=0.8, start=2_000))
    assert sum(shift.reference["counts"]) == 500


def test_answers_are_judged_by_what_they_said() -> None:
    stream = rows(0.3, 500)
    judged = judge(stream)
    assert np.array_equal(judged.errors == 1, stream.label_class != stream.predicted_class)
    assert judged.losses[judged.errors == 1].min() > judged.losses[judged.errors == 0].max() - 0.3
    assert judged.losses.min() >= 0.0
    assert judged.losses.max() <= 1.0
