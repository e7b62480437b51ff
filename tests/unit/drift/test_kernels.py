"""The compiled detectors against river's, row for row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river.drift import ADWIN, PageHinkley
from river.drift.binary import DDM, HDDMA
from scipy.stats import ks_2samp  # type: ignore[import-untyped]

from services.drift.core import kernels
from services.drift.core.kernels import Bits, Floats
from services.drift.core.sampled import ADWIN_ROWS, Adwin, Kswin, rise

Fold = Callable[[Bits, int, Floats], int]


def errors(rates: tuple[float, ...], each: int, seed: int) -> Bits:
    random = np.random.default_rng(seed)
    return np.concatenate([random.random(each) < rate for rate in rates]).astype(np.uint8)


def river_alarms(detector: Any, stream: Bits) -> list[int]:
    found = []
    for row, error in enumerate(stream.tolist()):
        detector.update(error)
        if detector.drift_detected:
            found.append(row)
    return found


def own_alarms(fold: Fold, stream: Bits) -> list[int]:
    found, start = [], 0
    while (row := fold(stream, start, state := np.zeros(8))) >= 0:
        assert state.any()
        found.append(row)
        start = row + 1
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("detector", "fold"),
    [
        (
            lambda: PageHinkley(delta=0.03, threshold=6.0, alpha=1.0, mode="up"),
            lambda stream, start, state: kernels.page_hinkley(stream, start, state, 0.03, 1.0, 6.0),
        ),
        (
            lambda: PageHinkley(delta=0.005, threshold=8.0, alpha=0.999, mode="up"),
            lambda stream, start, state: kernels.page_hinkley(stream, start, state, 0.005, 0.999, 8.0),
        ),
        (
            lambda: DDM(drift_threshold=3.0),
            lambda stream, start, state: kernels.ddm(stream, start, state, 3.0),
        ),
        (
            lambda: HDDMA(drift_confidence=0.001),  # type: ignore[no-untyped-call]
            lambda stream, start, state: kernels.hddm_a(stream, start, state, 0.001, np.log(2 / 0.001)),
        ),
    ],
    ids=["page_hinkley", "page_hinkley_forgets", "ddm", "hddm_a"],
)
def test_a_kernel_alarms_where_river_does(detector: Callable[[], Any], fold: Fold, seed: int) -> None:
    stream = errors((0.2, 0.45, 0.25, 0.6), 600, seed)
    wanted = river_alarms(detector(), stream)
    assert wanted
    assert own_alarms(fold, stream) == wanted


def test_the_scan_finds_a_rise_and_dates_it() -> None:
    stream = np.concatenate([np.zeros(400, np.uint8), np.ones(20, np.uint8)])
    count, rings, marks = np.zeros(1, np.int64), np.zeros((1, 2048), np.int64), np.zeros((1, 2048), np.int64)
    members = np.zeros((420, 1), np.int64)
    row, stream_found = kernels.scan(
        stream,
        members,
        np.arange(420),
        0,
        count,
        rings,
        marks,
        kernels.WINDOWS,
        np.full(1, 20.0),
        np.zeros(1),
    )
    assert (row, stream_found) == (407, 0)
    assert kernels.rows_since(rings[0], int(count[0])) == 8


def test_the_scan_is_blind_to_a_fall() -> None:
    ring = np.zeros(2048, np.int64)
    stream = np.concatenate([np.tile([1, 0], 500), np.zeros(500, np.int64)])
    ring[: len(stream) + 1] = np.concatenate([[0], np.cumsum(stream)])
    assert kernels.worst_window(ring, len(stream), kernels.WINDOWS) == 0.0
    assert kernels.rows_since(ring, len(stream)) == 0


def test_adwin_is_rivers_but_for_good_news() -> None:
    stream = errors((0.1, 0.5, 0.1), 700, 3)
    both = river_alarms(ADWIN(), stream)  # type: ignore[no-untyped-call]
    adwin, start, found = Adwin(0.002), 0, []
    while (row := adwin.step(stream, start)) >= 0:
        found.append(row)
        start = row + 1
    assert len(both) == 2
    assert found == both[:1]


@pytest.mark.parametrize("before", [10, 5_000, ADWIN_ROWS - 1, ADWIN_ROWS + 3])
def test_adwin_goes_on_from_its_rows(before: int) -> None:
    stream = errors((0.05,), before, 1)
    whole, again = Adwin(0.002), Adwin(0.002)
    whole.step(stream, 0)
    again.load(whole.state())
    more = errors((0.05, 0.4), 500, 2)
    assert whole.step(more, 0) == again.step(more, 0) >= 500
    assert len(whole.state()["rows"]) == len(again.state()["rows"])


@pytest.mark.parametrize("seed", range(20))
def test_kswin_measures_the_distance_that_scipy_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    window = random.integers(0, 12, 100) / 12 + np.where(np.arange(100) >= 70, seed / 60, 0.0)
    drawn = window[(np.arange(30) * 70) // 30]
    wanted = ks_2samp(drawn, window[70:], method="exact").statistic
    up = window[70:].mean() > drawn.mean()
    assert rise(window, 30) == pytest.approx(30 * wanted**2 if up else 0.0)


def test_kswin_is_blind_to_a_constant_stream_and_to_a_fall() -> None:
    kswin = Kswin(threshold=0.1)
    assert kswin.step(np.zeros(5_000), 0) == -1
    falling = Kswin(threshold=8.0)
    assert falling.step(np.concatenate([np.ones(2_000), np.zeros(2_000)]), 0) == -1
