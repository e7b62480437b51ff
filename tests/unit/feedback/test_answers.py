"""Profiles of answers: each champion's answer is in one, however the log is cut, and none waits for an outcome."""

import numpy as np
import pytest

from shared.control.records import Record
from shared.profiling import bucket, number_of
from tests.unit.feedback.makers import Logs, profiles, shop

EVERY = 100
WATCHED = f"[policy.retrain]\n[policy.drift]\nprofile_rows = {EVERY}\n"


def answered(versions: list[int], roles: list[str] | None = None) -> Logs:
    """Events that are answered by these versions, a second apart, and never labelled."""
    logs = Logs(shop(more=WATCHED))
    for at, version in enumerate(versions):
        role = "champion" if roles is None else roles[at]
        score = 0.9 if at % 4 else 0.25
        logs.whole(
            f"e{at}", at, model_version=version, role=role, score=score, predicted_class=int(score > 0.5)
        )
    return logs


def whole(logs: Logs) -> list[Record]:
    return profiles(logs, logs.unit(2).step(logs.all(), 0))


def test_a_profile_says_how_scores_and_classes_are_distributed() -> None:
    first, second = whole(answered([3] * 250))
    assert [each["number"] for each in (first, second)] == [0, 1]
    assert (first["unit"], first["of"], first["model_version"], first["rows"]) == (2, "answers", 3, EVERY)
    assert second["order_time"] - first["order_time"] == EVERY
    assert first["names"] == ["score", "confidence", "predicted"]
    score, confidence, predicted = first["columns"]
    assert score["buckets"] == [bucket(np.log(1 / 3)), bucket(np.log(9))]
    assert score["counts"] == [25, 75]
    assert score["minimum"] == pytest.approx(np.log(1 / 3))
    assert [number_of(place) for place in predicted["buckets"]] == [0, 1]
    assert predicted["counts"] == [25, 75]
    assert confidence["total"] == pytest.approx(25 * 0.75 + 75 * 0.9)
    assert confidence["squares"] == pytest.approx(25 * 0.75**2 + 75 * 0.9**2)


def test_a_profile_is_of_one_version() -> None:
    found = whole(answered([3] * 150 + [4] * 130 + [3] * 110))
    assert [(each["number"], each["model_version"]) for each in found] == [(0, 3), (1, 4), (2, 3)]
    assert [each["rows"] for each in found] == [EVERY] * 3
    assert found[1]["first_order_time"] - found[0]["first_order_time"] == 150


def test_answers_of_a_canary_are_passed_over() -> None:
    roles = ["canary" if at % 3 == 0 else "champion" for at in range(300)]
    (only, _) = whole(answered([4 if role == "canary" else 3 for role in roles], roles))
    assert (only["model_version"], only["rows"]) == (3, EVERY)
    assert only["order_time"] - only["first_order_time"] == 148


@pytest.mark.parametrize("cut", [1, 99, 100, 157, 260])
def test_a_restored_unit_goes_on_with_the_profile_under_way(cut: int) -> None:
    logs = answered([3] * 150 + [4] * 200)
    topic = logs.made.predictions.topic
    before, silent, after = logs.unit(2), logs.unit(2), logs.unit(2)
    head = profiles(logs, before.step([logs.polled(topic, 0, cut)], 0))
    silent.replay([logs.polled(topic, 0, cut)])
    after.restore(before.snapshot())
    assert after.digest() == silent.digest() == before.digest()
    assert head + profiles(logs, after.step([logs.polled(topic, cut)], 0)) == whole(logs)


def test_a_unit_from_before_the_loop_was_declared_goes_on() -> None:
    plain, logs = Logs(shop()), answered([3] * 120)
    for at in range(50):
        plain.whole(f"e{at}", at)
    before, after = plain.unit(2), logs.unit(2)
    before.step(plain.all(), 0)
    after.restore(before.snapshot())
    (only,) = profiles(logs, after.step([logs.polled(logs.made.predictions.topic)], 0))
    assert only["rows"] == EVERY


def test_nobody_profiles_where_nobody_watches() -> None:
    logs = Logs(shop())
    for at in range(1_200):
        logs.whole(f"e{at}", at)
    outs = logs.unit().step(logs.all(), 0).outs
    assert {out.topic for out in outs} == {logs.made.joined.topic}
