"""Promises of the windows that a random stream seldom meets: extremes, memory, refusals."""

import math

import numpy as np
import pytest

from services.features.core.spec import LABEL, Aggregate, WindowSpec
from services.features.core.windows import EntityWindows
from shared.codec.batch import Column, Floats, Ints, Strings
from tests.unit.features.driving import step
from tests.unit.features.naive import Row

HOUR = 3_600_000


def _features(spec: WindowSpec, values: list[tuple[int, float]], lateness: int = 0) -> list[float]:
    rows = [Row(b"e", time, b"%d" % at, (value,)) for at, (time, value) in enumerate(values)]
    return [float(f) for f in step(EntityWindows([spec], 1, lateness), rows, 1, 0)[:, 0]]


def _many(rows: int, entity: Strings, time: Ints | None = None) -> tuple[EntityWindows, Floats]:
    specs = [WindowSpec(Aggregate.MEAN, 0, HOUR), WindowSpec(Aggregate.COUNT, None, HOUR)]
    windows = EntityWindows(specs, 1)
    times = np.arange(rows) if time is None else time
    out = [
        windows.step(
            np.zeros(part.size, np.uint8),
            entity.take(part),
            times[part],
            Strings.repeated(b"", part.size),
            np.ones((part.size, 1)),
        )
        for part in np.array_split(np.arange(rows), max(1, rows // 5000))
    ]
    return windows, np.concatenate(out)


def test_a_huge_value_leaves_no_residue() -> None:
    spec = WindowSpec(Aggregate.SUM, 0, 10)
    assert _features(spec, [(0, 1e300), (5, 1e-3), (12, 1e-3)]) == [1e300, 1e300, 0.002]


def test_sums_that_cancel_are_as_good_as_fsum() -> None:
    spec = WindowSpec(Aggregate.SUM, 0, 100)
    values = [1e16, 1.0, -1e16, 1e-9]
    got = _features(spec, list(enumerate(values)))
    assert got == [math.fsum(values[: at + 1]) for at in range(4)]


def test_a_mean_over_a_million_does_not_drift() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(0, 1, 200_000) * 10.0 ** rng.integers(-8, 8, 200_000)
    windows = EntityWindows([WindowSpec(Aggregate.MEAN, 0, 5000)], 1)
    out = windows.step(
        np.zeros(values.size, np.uint8),
        Strings.repeated(b"e", values.size),
        np.arange(values.size),
        Strings.repeated(b"", values.size),
        values.reshape(-1, 1),
    )
    for at in (4_999, 5_000, 123_456, 199_999):
        inside = values[max(0, at - 4999) : at + 1]
        assert out[at, 0] == pytest.approx(math.fsum(inside) / inside.size, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("aggregate", "values", "expected"),
    [
        (Aggregate.MEAN, [1.7e308, 1.7e308, 1.7e308], 1.7e308),
        (Aggregate.SUM, [1.7e308, 1.7e308, -1.7e308], 1.7e308),
        (Aggregate.SUM, [1.7e308, 1.7e308], float(np.finfo(float).max)),
        (Aggregate.STD, [1e308, -1e308], 1e308),
        (Aggregate.STD, [0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 0.0),
        (Aggregate.STD, [1e9, 1e9 + 1], 0.5),
    ],
)
def test_extremes_stay_finite_and_right(aggregate: Aggregate, values: list[float], expected: float) -> None:
    got = _features(WindowSpec(aggregate, 0, 100), list(enumerate(values)))
    assert got[-1] == pytest.approx(expected, rel=1e-12, abs=0)


def test_one_zero() -> None:
    assert math.copysign(1.0, _features(WindowSpec(Aggregate.LAST, 0, 10), [(0, -0.0)])[0]) == 1.0


def test_times_at_the_edge_of_int64_are_gone_or_counted_but_never_wrong() -> None:
    spec = WindowSpec(Aggregate.COUNT, None, 10, default=-1.0)
    assert _features(spec, [(-(2**63), 1.0), (0, 1.0), (2**62, 1.0), (-(2**63), 1.0)]) == [
        -1.0,
        1.0,
        1.0,
        -1.0,
    ]


def test_distinct_numbers_have_one_zero_and_no_null() -> None:
    windows = EntityWindows([WindowSpec(Aggregate.DISTINCT, 0, 10, default=-1.0)], 0, 0, 1)
    got = windows.step(
        np.zeros(5, np.uint8),
        Strings.repeated(b"e", 5),
        np.arange(5),
        Strings.repeated(b"", 5),
        np.empty((5, 0)),
        [Column(np.array([np.nan, 0.0, -0.0, 1.0, 1.0]))],
    )
    assert got[:, 0].tolist() == [-1.0, 1.0, 1.0, 2.0, 2.0]


def test_memory_is_bounded_by_what_windows_hold_for_a_hot_entity() -> None:
    windows, out = _many(300_000, Strings.repeated(b"hot", 300_000), np.arange(300_000) * 1000)
    assert out[-1].tolist() == [1.0, 3600.0]
    assert windows.nbytes() < 3_000_000


def test_memory_is_bounded_when_different_values_are_counted() -> None:
    windows = EntityWindows([WindowSpec(Aggregate.DISTINCT, 0, 1000)], 0, 0, 1)
    for at in range(0, 200_000, 2000):
        values = np.arange(at, at + 2000)
        out = windows.step(
            np.zeros(2000, np.uint8),
            Strings.repeated(b"hot", 2000),
            values,
            Strings.repeated(b"", 2000),
            np.empty((2000, 0)),
            [Column(values)],
        )
    assert out[-1, 0] == 1000.0
    assert windows.nbytes() < 500_000


def test_a_label_of_an_event_that_is_gone_but_still_in_memory_is_dropped() -> None:
    windows = EntityWindows([WindowSpec(Aggregate.RATE, LABEL, 10)], 0, 0, unit_horizon_ms=20)
    label = Row(b"a", 0, b"1", label=1)
    step(windows, [Row(b"a", 0, b"1"), Row(b"b", 100, b"2"), label, label], 0, 0)
    counts = windows.counts()
    assert (counts.labels_attached, counts.labels_duplicate, counts.labels_expired) == (0, 0, 2)


def test_memory_is_bounded_when_entities_come_and_go() -> None:
    names = Strings.of([b"%d" % n for n in range(200_000)])
    windows, _ = _many(200_000, names, np.arange(200_000) * (HOUR // 10))
    # The unit keeps an hour and a day: 250 entities or so.
    assert windows.counts().entities < 300
    assert windows.nbytes() < 2_000_000
    assert windows.snapshot()["key_lengths"].size < 12_000


def test_labels_that_wait_for_events_that_never_come_are_let_go() -> None:
    windows = EntityWindows([WindowSpec(Aggregate.RATE, LABEL, 10)], 0, 0, unit_horizon_ms=20)
    rows = [Row(b"%d" % n, n, b"id", label=1) for n in range(20_000)]
    steps = [row for n in range(20_000) for row in (rows[n], Row(b"e", n, b""))]
    for at in range(0, len(steps), 1000):
        step(windows, steps[at : at + 1000], 0, 0)
    assert windows.counts().labels_waiting == 20
    assert windows.counts().labels_expired == 20_000 - 20
    assert windows.nbytes() < 1_000_000


def test_a_late_event_does_not_see_the_future_and_the_future_sees_it() -> None:
    spec = WindowSpec(Aggregate.SUM, 0, 10)
    assert _features(spec, [(0, 1.0), (8, 2.0), (4, 4.0), (9, 8.0)], lateness=10) == [1.0, 3.0, 5.0, 15.0]


def test_an_event_that_is_gone_when_it_comes_has_the_defaults() -> None:
    spec = WindowSpec(Aggregate.SUM, 0, 10, default=-3.0)
    assert _features(spec, [(100, 1.0), (90, 2.0), (91, 4.0)]) == [1.0, -3.0, 4.0]


@pytest.mark.parametrize(
    "spec",
    [
        WindowSpec(Aggregate.SUM, None, 10),
        WindowSpec(Aggregate.SUM, 1, 10),
        WindowSpec(Aggregate.RATE, 0, 10),
        WindowSpec(Aggregate.MIN, LABEL, 10),
        WindowSpec(Aggregate.COUNT, None, 0),
        WindowSpec(Aggregate.COUNT, None, 10, -1),
        WindowSpec(Aggregate.DISTINCT, 0, 10),
    ],
)
def test_specs_that_mean_nothing_are_refused(spec: WindowSpec) -> None:
    with pytest.raises(ValueError, match="spec 0"):
        EntityWindows([spec], 1)


@pytest.mark.parametrize("label", [0.5, math.nan, math.inf, 2.0**31])
def test_labels_that_are_not_whole_are_refused(label: float) -> None:
    windows = EntityWindows([WindowSpec(Aggregate.RATE, LABEL, 10)], 0)
    one = Strings.of([b"x"])
    with pytest.raises(ValueError, match="whole number"):
        windows.step(
            np.ones(1, np.uint8), one, np.zeros(1, np.int64), one, np.empty((1, 0)), (), np.array([label])
        )


def test_a_snapshot_of_other_windows_is_refused() -> None:
    saved = EntityWindows([WindowSpec(Aggregate.COUNT, None, 10)], 0).snapshot()
    with pytest.raises(ValueError, match="other windows"):
        EntityWindows([WindowSpec(Aggregate.COUNT, None, 11)], 0).restore(saved)


def test_digest_tells_states_apart() -> None:
    def digest(*rows: Row) -> str:
        windows = EntityWindows([WindowSpec(Aggregate.RATE, LABEL, 10)], 0)
        step(windows, rows, 0, 0)
        return windows.digest()

    event, label = Row(b"e", 0, b"1"), Row(b"e", 0, b"1", label=1)
    digests = [
        digest(event),
        digest(Row(b"f", 0, b"1")),
        digest(Row(b"e", 1, b"1")),
        digest(event, label),
        digest(event, Row(b"e", 0, b"1", label=0)),
        digest(event, Row(b"e", 0, b"2", label=1)),
        digest(event, event),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(event, label) == digest(label, event)
