"""The data family: what moved is named, what did not is not, and chance stays within its budget."""

from dataclasses import replace

import numpy as np
import pytest

from services.drift.core.histograms import chance, homogeneity, jensen_shannon, psi
from services.drift.core.joint import CURRENT, EVERY, Joint, auc_by_chance, cross_auc
from services.drift.core.profiles import MOST_ALARMS, Codes, Moved, Profiles
from shared.codec.batch import Floats
from shared.profiling import bucket, edge
from tests.unit.drift.streams import profiles


def told(before: Floats, after: Floats, **known: list[float]) -> list[Moved]:
    watched = Profiles(1_000, 1e6, known)
    return [moved for row in profiles(np.vstack([before, after])) for moved in watched.step(row)]


def normal(rows: int, seed: int, columns: int = 2) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, columns))


@pytest.mark.parametrize("measure", [psi, jensen_shannon])
@pytest.mark.parametrize("probability", [0.05, 0.005])
def test_chance_passes_its_threshold_as_often_as_said(measure: object, probability: float) -> None:
    random = np.random.default_rng(2)
    shares = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    limit = chance(5, 3_000, 1_000, probability) / (1 if measure is psi else 8)
    draws = [(random.multinomial(3_000, shares), random.multinomial(1_000, shares)) for _ in range(6_000)]
    share = np.mean([(psi if measure is psi else jensen_shannon)(a, b) > limit for a, b in draws])
    assert 0.6 * probability < share < 1.5 * probability


def test_the_same_counts_are_homogeneous() -> None:
    assert homogeneity(np.array([30, 0, 10]), np.array([3, 0, 1])) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("value", [1.0, -1.0, 0.3, -7e-9, 123456.0, 5e-320])
def test_a_bucket_begins_at_or_below_its_value(value: float) -> None:
    assert bucket(edge(bucket(value))) == bucket(value)
    assert abs(edge(bucket(value))) <= abs(value)


def test_a_moved_feature_is_named_with_both_histograms() -> None:
    after = normal(2_000, 2)
    after[:, 1] += 1.0
    moved = told(normal(5_000, 1), after)
    assert {each.subject for each in moved} == {"f1"}
    assert moved[0].statistic > moved[0].threshold
    assert len(moved[0].reference["counts"]) == len(moved[0].reference["edges"]) + 1
    assert sum(moved[0].current["counts"]) == 1_000


def test_missing_values_are_noticed() -> None:
    after = normal(1_000, 2)
    after[::20, 0] = np.nan
    (moved,) = told(normal(4_000, 1), after)
    assert (moved.detector, moved.subject) == ("missing", "f0")
    assert moved.detail == "f0: missing: 0.00% before, 5.00% now"


def test_zeros_are_noticed() -> None:
    after = normal(1_000, 2)
    after[:40, 0] = 0.0
    (moved,) = told(normal(4_000, 1), after)
    assert (moved.detector, moved.subject) == ("zeros", "f0")


def test_a_range_that_is_left_is_noticed_but_not_by_one_value() -> None:
    before = np.random.default_rng(1).random((4_000, 2))
    after = np.random.default_rng(2).random((1_000, 2))
    after[0] = 1e300
    assert told(before, after) == []
    after[:30, 0] = 50.0
    (moved,) = told(before, after)
    assert (moved.detector, moved.subject) == ("range", "f0")
    assert moved.detail == "f0: 30 values above 1, where none was before"


def codes(rows: int, seed: int, categories: int) -> Floats:
    return np.random.default_rng(seed).integers(0, categories, (rows, 1)).astype(np.float64)


@pytest.mark.parametrize("stray", [0.5, 1.5])
def test_an_unseen_category_is_noticed(stray: float) -> None:
    before, after = codes(4_000, 1, 3), codes(1_000, 2, 3)
    assert told(before, after, f0=[0, 1, 2]) == []
    after[:20] = stray
    assert {each.detector for each in told(before, after, f0=[0, 1, 2])} == {"unseen"}


def test_a_zero_is_counted_where_it_is_no_category() -> None:
    after = codes(1_000, 2, 2) + 1.0
    after[:20] = 0.0
    assert Codes([1, 2]).others(profiles(after)[0].columns[0]) == 20
    assert Codes([0, 1, 2]).others(profiles(after)[0].columns[0]) == 0


@pytest.mark.parametrize(("categories", "stray"), [(9, 9.0), (33, 39.0), (9, 8.5)])
def test_a_code_in_the_bucket_of_a_declared_one_is_noticed_when_it_keeps_coming(
    categories: int, stray: float
) -> None:
    """Counts do not tell 8 and 9 apart; that 9 is the largest value of a profile does."""
    before, after = codes(4_000, 1, categories), codes(3_000, 2, categories)
    known = [float(code) for code in range(categories)]
    assert told(before, after, f0=known) == []
    after[500::1_000] = stray
    assert told(before, after[:2_000], f0=known) == []
    (found,) = told(before, after, f0=known)
    assert (found.detector, found.subject, found.statistic) == ("unseen", "f0", 3.0)
    such = f"values of no declared category, such as {stray:g},"
    assert found.detail == f"f0: {such} came in each of the newest 3 profiles"


def test_an_unseen_category_that_stays_is_told_once() -> None:
    before, after = codes(4_000, 1, 9), codes(20_000, 2, 9)
    after[::100] = 9.0
    known = [float(code) for code in range(9)]
    assert [each.detector for each in told(before, after, f0=known)] == ["unseen"]
    after[10_000:] = codes(10_000, 3, 9)
    after[14_000::100] = 9.0
    assert [each.detector for each in told(before, after, f0=known)] == ["unseen", "unseen"]


def test_categories_undeclared_from_the_beginning_are_noticed() -> None:
    before, after = codes(4_000, 1, 6), codes(1_000, 2, 6)
    assert told(before, after, f0=[0, 1, 2, 3, 4, 5]) == []
    assert [each.detector for each in told(before, after, f0=[0, 1, 2])] == ["unseen"]


def test_a_feature_whose_profiles_always_differ_is_given_room() -> None:
    """Rows of one profile hang together: each has a level of its own."""
    random = np.random.default_rng(5)
    levels = np.repeat(random.normal(size=60), 1_000)[:, None] * 0.2
    clustered = levels + random.normal(size=(60_000, 1))
    assert len(told(clustered[:20_000], clustered[20_000:])) <= 1
    independent = random.normal(size=(20_000, 1))
    assert told(independent, independent[:1_000] + 0.5) != []


def test_units_are_compared_with_themselves() -> None:
    watched = Profiles(1_000, 1e6)
    here, there = profiles(normal(8_000, 1)), profiles(normal(8_000, 2) + 10.0, unit=1)
    assert [m for pair in zip(here, there, strict=True) for row in pair for m in watched.step(row)] == []


def test_when_all_move_ten_say_so() -> None:
    assert len(told(normal(4_000, 1, 30), normal(1_000, 2, 30) + 3.0)) == MOST_ALARMS


def test_an_alarm_begins_a_new_reference() -> None:
    assert len(told(normal(4_000, 1, 1), normal(10_000, 2, 1) + 3.0)) == 1


def test_profiles_go_on_from_their_state() -> None:
    whole, again = Profiles(1_000, 1e6), Profiles(1_000, 1e6)
    first, second = profiles(normal(6_000, 1)), profiles(normal(1_000, 2) + 0.4)
    assert [whole.step(row) for row in first] == [[]] * 6
    again.load(whole.state())
    found = whole.step(second[0])
    assert found
    assert again.step(second[0]) == found


def test_an_empty_profile_is_no_alarm() -> None:
    watched = Profiles(1_000, 1e6)
    last = None
    for last in profiles(normal(5_000, 1)):
        watched.step(last)
    assert last is not None
    nothing = replace(
        last.columns[0], buckets=np.zeros(0, np.int64), counts=np.zeros(0, np.int64), minimum=np.inf
    )
    watched.step(replace(last, rows=0, columns=(nothing, nothing)))


def test_stationary_profiles_raise_nothing() -> None:
    assert told(normal(5_000, 1, 8), normal(100_000, 2, 8)) == []


@pytest.mark.parametrize("probability", [0.1, 0.01])
def test_the_classifier_is_fooled_as_often_as_said(probability: float) -> None:
    random = np.random.default_rng(1)
    limit = auc_by_chance(400, 200, probability)
    areas = [cross_auc(random.normal(size=(400, 5)), random.normal(size=(200, 5)))[0] for _ in range(1_500)]
    assert np.mean(np.array(areas) > limit) < 1.6 * probability


def test_a_joint_shift_is_found_that_no_feature_shows_alone() -> None:
    """A small shift of each of twenty features."""
    joint = Joint(20, 1_000, 1e6)
    sequence = np.arange(6_000)
    features = normal(6_000, 3, 20)
    features[3_000:] += 0.25
    (found,) = joint.step(features, sequence)
    assert 3_000 < sequence[found.row] <= 3_000 + CURRENT + EVERY
    assert found.since_sequence > 3_000 - CURRENT
    assert 0.5 < found.threshold < found.statistic < 1.0


def test_a_change_of_spread_is_found() -> None:
    features = normal(5_000, 3, 4)
    features[3_000:, 2] *= 3.0
    (found,) = Joint(4, 1_000, 1e6).step(features, np.arange(5_000))
    assert found.telling[0] == 2
