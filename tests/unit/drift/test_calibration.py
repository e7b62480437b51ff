"""The table of thresholds against fresh runs, at a budget that a test can afford."""

import numpy as np
import pytest

from services.drift.core.calibration import RUN, fit, simulate, threshold
from services.drift.core.kernels import Floats
from services.drift.core.performance import SHARES, Judged, Performance
from services.drift.core.tabled import RATES, TABLE


def calm(rate: float, rows: int, seed: int) -> Judged:
    random = np.random.default_rng(seed)
    wrong = random.random(rows) < rate
    confidence = random.random(rows)
    losses: Floats = (wrong + confidence) / 2
    return Judged(wrong.astype(np.uint8), losses, confidence, random.integers(0, 2, rows), np.arange(rows))


@pytest.mark.parametrize("detector", ["scan", "page_hinkley", "ddm", "hddm_a", "kswin"])
@pytest.mark.parametrize("rate", [0.03, 0.2])
def test_fresh_runs_pass_the_threshold_as_often_as_the_table_says(detector: str, rate: float) -> None:
    every = 40_000
    maxima = simulate(detector, rate, runs=800, seed=99)
    share = float(np.mean(maxima > threshold(detector, rate, every)))
    assert 0.3 * RUN / every < share < 2.0 * RUN / every


@pytest.mark.parametrize("detector", sorted(SHARES))
def test_a_detector_by_itself_keeps_its_budget(detector: str) -> None:
    family = Performance(2, 0, rows_between=20_000, detectors=(detector,))
    alarms = sum(len(family.step(calm(0.1, 100_000, seed))) for seed in range(2))
    assert alarms <= 22  # 10 are allowed; Poisson passes 22 once in 2,000


@pytest.mark.parametrize("detector", sorted(TABLE))
def test_a_rarer_false_alarm_takes_a_higher_threshold(detector: str) -> None:
    for rate in (0.0, *RATES, 1.0):
        heights = [threshold(detector, rate, rows) for rows in (1e4, 1e5, 1e6, 1e7)]
        assert heights == sorted(heights)
        assert heights[0] < heights[-1]


def test_the_fit_finds_an_exponential_tail() -> None:
    maxima = np.random.default_rng(1).exponential(2.0, 50_000) + 3.0
    offset, slope = fit(maxima, run=100)
    assert slope == pytest.approx(2.0, rel=0.05)
    assert offset + slope * np.log(100 / 0.01) == pytest.approx(3.0 + 2.0 * np.log(100), rel=0.05)


def test_the_same_seed_gives_the_same_runs() -> None:
    assert np.array_equal(simulate("ddm", 0.1, 20, seed=5), simulate("ddm", 0.1, 20, seed=5))
