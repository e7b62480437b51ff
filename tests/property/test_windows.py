"""Every aggregate on random streams equals the naive fold, however the stream is cut, saved and restored."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.features.core.spec import LABEL, Aggregate, WindowSpec
from services.features.core.windows import EntityWindows, WindowCounts
from shared.codec.batch import Floats
from tests.unit.features.driving import step
from tests.unit.features.naive import NaiveWindows, Row

_OF_VALUES = (Aggregate.SUM, Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX, Aggregate.STD, Aggregate.LAST)
_OF_LABELS = (Aggregate.COUNT, Aggregate.SUM, Aggregate.MEAN, Aggregate.RATE)
_KINDS = [
    (Aggregate.COUNT, None),
    (Aggregate.SINCE_LAST, None),
    *product(_OF_VALUES, (0, 1)),
    *product(_OF_LABELS, (LABEL,)),
    (Aggregate.DISTINCT, 0),
]
_FRAMES = [(1, 0), (7, 0), (30, 0), (10, 5), (3, 20), (25, 1)]
ALL_SPECS = [
    WindowSpec(aggregate, field, window, delay, default=-7.0)
    for (aggregate, field), (window, delay) in product(_KINDS, _FRAMES)
]
FIELDS, CODES = 2, 1

specs = st.one_of(
    st.just(ALL_SPECS),
    st.lists(st.sampled_from(ALL_SPECS), min_size=1, max_size=6),
)
amounts = st.one_of(
    st.none(),
    st.integers(-50, 50).map(float),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1e15, -1e15, 1e-9, 0.1]),
)
texts = st.sampled_from([None, b"", b"a", b"b", b"c"])


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Events that mostly go forward, by nothing, a little or a lot, and sometimes back; labels anywhere near."""
    rows: list[Row] = []
    now = 0
    for _ in range(draw(st.integers(1, 60))):
        move = draw(st.sampled_from([0, 0, 1, 1, 2, 5, 9, -1, -2, -6, -15, -40, 40, 130]))
        now = max(now, now + move)
        entity = draw(st.sampled_from([b"x", b"x", b"x", b"y", b"zz"]))
        time = now if move >= 0 else now + move
        ident = draw(st.sampled_from([b"1", b"2", b"3"]))
        if draw(st.integers(0, 2)):
            rows.append(Row(entity, time, ident, (draw(amounts), draw(amounts)), (draw(texts),)))
        else:
            ahead = draw(st.sampled_from([0, 0, 0, -1, 1, 2]))
            rows.append(Row(entity, time + ahead, ident, label=draw(st.integers(0, 2))))
    return rows


def _folded(naive: NaiveWindows, rows: list[Row]) -> Floats:
    out = [features for row in rows if (features := naive.fold(row)) is not None]
    return np.array(out, np.float64).reshape(len(out), len(naive.specs))


def _agree(got: Floats, want: Floats, specs: list[WindowSpec], rows: list[Row]) -> None:
    assert got.shape == want.shape
    largest = max((abs(v) for row in rows for v in row.values if v is not None), default=0.0)
    for at, spec in enumerate(specs):
        if spec.aggregate is Aggregate.STD:
            np.testing.assert_allclose(got[:, at], want[:, at], rtol=1e-9, atol=1e-13 * largest)
        elif spec.aggregate in (Aggregate.SUM, Aggregate.MEAN):
            # A double-double sum: 106 bits. Halfway between two doubles a far smaller value may not decide.
            np.testing.assert_allclose(got[:, at], want[:, at], rtol=2.0**-51, atol=2.0**-98 * largest)
        else:
            np.testing.assert_array_equal(got[:, at], want[:, at], err_msg=str(spec))


@pytest.mark.timeout(900)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    specs=specs,
    rows=streams(),
    lateness=st.sampled_from([0, 3, 50]),
    unit_extra=st.sampled_from([0, 20, 1000]),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    restores=st.sets(st.integers(0, 6)),
)
def test_every_feature_equals_the_naive_fold(
    specs: list[WindowSpec],
    rows: list[Row],
    lateness: int,
    unit_extra: int,
    cuts: list[int],
    restores: set[int],
) -> None:
    horizon = max(s.window_ms + s.delay_ms for s in specs) + lateness
    unit = horizon + unit_extra

    def windows() -> EntityWindows:
        return EntityWindows(specs, FIELDS, lateness, CODES, unit)

    naive = NaiveWindows(specs, horizon, unit)
    want = _folded(naive, rows)
    whole = windows()
    straight = step(whole, rows, FIELDS, CODES)
    _agree(straight, want, specs, rows)

    cut = windows()
    parts = []
    edges = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    for at, (begin, end) in enumerate(pairwise(edges)):
        if at in restores:
            saved = cut.snapshot()
            digest = cut.digest()
            cut = windows()
            cut.restore(saved)
            assert cut.digest() == digest
        parts.append(step(cut, rows[begin:end], FIELDS, CODES))
    np.testing.assert_array_equal(np.concatenate(parts).view(np.int64), straight.view(np.int64))
    assert cut.digest() == whole.digest()
    assert cut.counts() == whole.counts()
    _counts_agree(whole.counts(), naive, specs)


def _counts_agree(got: WindowCounts, naive: NaiveWindows, specs: list[WindowSpec]) -> None:
    alive = {entity: naive.alive(entity) for entity in naive.seen}
    assert (got.late, got.too_late) == (naive.counts.late, naive.counts.too_late)
    assert got.events == sum(map(len, alive.values()))
    if any(spec.field == LABEL for spec in specs):
        assert got.labels_attached == naive.counts.labels_attached
        assert got.labels_duplicate == naive.counts.labels_duplicate
        assert got.labels_expired == naive.counts.labels_expired
        assert got.labels_waiting == len(naive.held)
        assert got.entities == len({e for e, live in alive.items() if live} | {k[0] for k in naive.held})


def _jittery(seed: int) -> list[Row]:
    """Times that jump back and forth; two groups of entities, of which one is silent until all it had is gone."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(0, 3, 1500)) - rng.integers(0, 4, 1500) * rng.integers(0, 9, 1500)
    return [
        Row(
            b"%d" % (rng.integers(0, 3) + 3 * (at // 200 % 2)),
            int(time),
            b"%d" % rng.integers(0, 3),
            (float(rng.normal(100, 10)), None if rng.random() < 0.3 else float(rng.normal(0, 1))),
            (b"%d" % rng.integers(0, 8),),
            int(rng.integers(0, 3)) if rng.random() < 0.2 else None,
        )
        for at, time in enumerate(times)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_long_jittery_streams_equal_the_naive_fold_and_the_bits_of_any_cut(seed: int) -> None:
    specs = [s for s in ALL_SPECS if (s.window_ms, s.delay_ms) in ((30, 0), (10, 5), (3, 20))]
    rows = _jittery(seed)
    naive = NaiveWindows(specs, 30 + 5, 100)
    whole = EntityWindows(specs, FIELDS, 5, CODES, 100)
    straight = step(whole, rows, FIELDS, CODES)
    _agree(straight, _folded(naive, rows), specs, rows)
    _counts_agree(whole.counts(), naive, specs)

    cut = EntityWindows(specs, FIELDS, 5, CODES, 100)
    parts = []
    for at in range(0, len(rows), 37):
        parts.append(step(cut, rows[at : at + 37], FIELDS, CODES))
        saved = cut.snapshot()
        cut = EntityWindows(specs, FIELDS, 5, CODES, 100)
        cut.restore(saved)
    np.testing.assert_array_equal(np.concatenate(parts).view(np.int64), straight.view(np.int64))
    assert cut.digest() == whole.digest()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("codes", [0, 1])
def test_what_a_sweep_let_go_of_comes_back_with_the_same_bits(seed: int, codes: int) -> None:
    rng = np.random.default_rng(seed)
    specs = [WindowSpec(Aggregate.STD, 0, 20), WindowSpec(Aggregate.STD, 0, 5, 10)]
    specs += [WindowSpec(Aggregate.DISTINCT, 0, 20)] * codes

    def some(entity: bytes, begin: int, count: int) -> list[Row]:
        times = np.sort(rng.integers(begin, begin + 40, count))
        return [Row(entity, int(t), b"", (float(rng.normal()),), (b"%d" % (t % 3),) * codes) for t in times]

    rows = some(b"a", 0, 12) + [Row(b"b", 200, b"", (1.0,), (b"",) * codes)] * 40 + some(b"a", 180, 12)

    def folded(size: int) -> Floats:
        windows = EntityWindows(specs, 1, 0, codes, unit_horizon_ms=50)
        parts = [step(windows, rows[at : at + size], 1, codes) for at in range(0, len(rows), size)]
        return np.concatenate(parts)

    np.testing.assert_array_equal(folded(1).view(np.int64), folded(len(rows)).view(np.int64))
