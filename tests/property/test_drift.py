"""Laws of the drift monitor: alarms are a function of the log, however it is cut and wherever it is restarted."""

import itertools
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.drift.core.histograms import jensen_shannon, psi
from services.drift.core.joint import Joint
from services.drift.core.monitor import Monitor
from services.drift.core.records import Alarm, LabeledRows
from services.drift.core.serving import Serving
from services.drift.core.state import pack, unpack
from shared.contracts.policies import DriftPolicy
from tests.unit.drift.streams import FEATURES, joined, profiles, rows

POLICY = DriftPolicy.model_validate({"reference": 300, "quiet": 200, "profile_rows": 200})


def fresh() -> Monitor:
    return Monitor(POLICY, FEATURES, 2)


@st.composite
def streams(draw: Callable[..., object]) -> LabeledRows:
    """Stretches of different error rates, versions and features."""
    parts, start = [], 0
    for _ in range(int(str(draw(st.integers(1, 4))))):
        count = int(str(draw(st.integers(1, 900))))
        rate = float(str(draw(st.sampled_from([0.0, 0.02, 0.1, 0.4, 1.0]))))
        shift = float(str(draw(st.sampled_from([0.0, 0.0, 1.0]))))
        version = int(str(draw(st.integers(1, 2))))
        parts.append(rows(rate, count, start, version, shift=shift))
        start += count
    return joined(*parts)


def whole(stream: LabeledRows) -> list[Alarm]:
    return fresh().labeled(stream)


@settings(max_examples=25, deadline=None)
@given(streams(), st.lists(st.integers(0, 3_600), max_size=6))
def test_cuts_change_nothing(stream: LabeledRows, cuts: list[int]) -> None:
    monitor, alarms = fresh(), []
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(bounds):
        alarms += monitor.labeled(stream.take(slice(start, end)))
    reference = fresh()
    assert alarms == reference.labeled(stream)
    assert monitor.snapshot() == reference.snapshot()


@settings(max_examples=25, deadline=None)
@given(streams(), st.integers(0, 3_600))
def test_a_restart_changes_nothing(stream: LabeledRows, cut: int) -> None:
    cut = min(cut, len(stream))
    first, vectors = fresh(), profiles(stream.features, every=200)
    alarms = first.labeled(stream.take(slice(0, cut)))
    early = [alarm for row in vectors[: len(vectors) // 2] for alarm in first.profile(row)]
    second = fresh()
    second.restore(first.snapshot())
    assert second.snapshot() == first.snapshot()
    rest = stream.take(slice(cut, None))
    assert second.labeled(rest) == first.labeled(rest)
    late = vectors[len(vectors) // 2 :]
    assert [a for row in late for a in second.profile(row)] == [a for row in late for a in first.profile(row)]
    assert second.snapshot() == first.snapshot()
    assert len({alarm.id for alarm in alarms + early}) == len(alarms + early)


@settings(max_examples=25, deadline=None)
@given(streams())
def test_alarms_say_where_they_stand(stream: LabeledRows) -> None:
    alarms = whole(stream)
    assert [alarm.sequence for alarm in alarms] == sorted(alarm.sequence for alarm in alarms)
    assert len({alarm.id for alarm in alarms}) == len(alarms)
    for alarm in alarms:
        assert 0 <= alarm.since_sequence <= alarm.sequence < len(stream)
        assert np.isfinite(alarm.magnitude)
        assert np.isfinite(alarm.threshold)
    performance = [alarm.sequence for alarm in alarms if alarm.family == "performance"]
    versions = stream.model_version
    for one, other in itertools.pairwise(performance):
        assert (
            other - one > POLICY.quiet
            or versions[one] != versions[other]
            or (len(set(versions[one:other].tolist())) > 1)
        )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=200), st.lists(st.integers(1, 199), max_size=5))
def test_versions_are_followed_however_rows_are_cut(versions: list[int], cuts: list[int]) -> None:
    array = np.array(versions)

    def kept(bounds: list[int]) -> list[tuple[int, bool]]:
        serving, found = Serving(), []
        for start, end in itertools.pairwise(bounds):
            for anew, part in serving.split(array[start:end]):
                at = range(start + part.start, start + part.stop)
                found += [(row, anew and row == at[0]) for row in at]
        return found

    bounds = sorted({0, len(array), *(cut for cut in cuts if cut < len(array))})
    assert kept(bounds) == kept([0, len(array)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 1_000)), min_size=2, max_size=20))
def test_distances_of_histograms(counts: list[tuple[int, int]]) -> None:
    one, other = np.array(counts).T
    assert psi(one, other) >= 0.0
    assert -1e-12 <= jensen_shannon(one, other) <= np.log(2) + 1e-12
    assert jensen_shannon(one, one) < 1e-12
    assert np.isclose(psi(one, other), psi(other, one))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=2),
        min_size=1,
        max_size=40,
    )
)
def test_any_values_pass_the_classifier(values: list[list[float]]) -> None:
    joint = Joint(2, 100, 1e5)
    features = np.resize(np.array(values, np.float64), (800, 2))
    for found in joint.step(features, np.arange(800)):
        assert 0.5 <= found.statistic <= 1.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-(2**62), 2**62), max_size=30),
    st.lists(st.floats(allow_nan=True), max_size=30),
)
def test_a_state_comes_back_bit_by_bit(whole_numbers: list[int], numbers: list[float]) -> None:
    state = {"a": np.array(whole_numbers, np.int64), "b": np.array(numbers, np.float64), "c": [1, None, "x"]}
    back = unpack(pack(state))
    assert back["a"].tobytes() == state["a"].tobytes()  # type: ignore[attr-defined]
    assert back["b"].tobytes() == state["b"].tobytes()  # type: ignore[attr-defined]
    assert back["c"] == [1, None, "x"]
    assert pack(back) == pack(state)
