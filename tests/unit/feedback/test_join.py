"""The rules of the join, each with its case."""

from collections.abc import Callable

import numpy as np
import pytest

from shared.codec.batch import Strings
from shared.errors import Fatal
from tests.unit.feedback.makers import Logs, Row, joined, reasons, shop, told, words

Case = tuple[Callable[[Logs], None], list[Row], list[tuple[str, int]]]


def in_time(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 20)


def at_the_horizon(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 1_010)


def early(logs: Logs) -> None:
    logs.label("a", 1, 5)
    logs.whole("a", 10)


def early_thrice(logs: Logs) -> None:
    logs.label("a", 1, 3)
    logs.label("a", 1, 4)
    logs.label("a", 0, 5)
    logs.whole("a", 10)


def early_for_too_long(logs: Logs) -> None:
    logs.label("a", 1, 5, of=4)
    logs.progress(505)
    logs.progress(506)
    logs.whole("a", 510)


def twice(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 20)
    logs.label("a", 1, 30)


def conflicting(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 20)
    logs.label("a", 0, 30)
    logs.label("a", 1, 40)


def corrected(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 20)
    logs.label("a", 0, 30, fixed=True)
    logs.label("a", 0, 35, fixed=True)
    logs.label("a", 1, 40)


def missing(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.whole("b", 20)
    logs.progress(1_011)


def late(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 1_011)
    logs.label("a", 1, 1_012)
    logs.label("a", 0, 1_013)


def stale(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 1_511, of=10)


def not_quite_stale(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.label("a", 1, 1_510, of=10)


def unpredicted(logs: Logs) -> None:
    place = logs.event("a", 10)
    logs.vector(place, "a", 10)
    logs.whole("b", 11)
    logs.label("a", 1, 20)
    logs.label("b", 1, 21)
    logs.progress(5_000)


def shadowed(logs: Logs) -> None:
    logs.whole("a", 10, shadows=(5, 6))
    logs.label("a", 1, 20)


def again(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.whole("a", 15)
    logs.label("a", 1, 20)


def again_when_the_first_is_gone(logs: Logs) -> None:
    logs.whole("a", 10)
    logs.whole("a", 1_600)
    logs.label("a", 1, 1_700, of=1_600)


L, M, T, C = "LABEL", "MISSING", "LATE", "CORRECTION"
WITHOUT_DEFAULT: dict[str, Case] = {
    "in time": (in_time, [(L, "a", "champion", 1, -1, 20)], []),
    "at the horizon": (at_the_horizon, [(L, "a", "champion", 1, -1, 1_010)], []),
    "early": (early, [(L, "a", "champion", 1, -1, 10)], []),
    "early, repeated and contradicted": (
        early_thrice,
        [(L, "a", "champion", 1, -1, 10)],
        [("label.conflict", 1_005)],
    ),
    "early for too long": (early_for_too_long, [], [("label.orphan", 1_005)]),
    "twice": (twice, [(L, "a", "champion", 1, -1, 20)], []),
    "conflicting": (conflicting, [(L, "a", "champion", 1, -1, 20)], [("label.conflict", 1_030)]),
    "corrected": (
        corrected,
        [(L, "a", "champion", 1, -1, 20), (C, "a", "champion", 0, 1, 30)],
        [("label.conflict", 1_040)],
    ),
    "missing": (missing, [(M, "a", "champion", -1, -1, 1_010)], []),
    "late": (
        late,
        [(M, "a", "champion", -1, -1, 1_010), (T, "a", "champion", 1, -1, 1_011)],
        [("label.conflict", 2_013)],
    ),
    "stale": (stale, [(M, "a", "champion", -1, -1, 1_010)], [("label.stale", 2_511)]),
    "not quite stale": (
        not_quite_stale,
        [(M, "a", "champion", -1, -1, 1_010), (T, "a", "champion", 1, -1, 1_510)],
        [],
    ),
    "unpredicted": (unpredicted, [(L, "b", "champion", 1, -1, 21)], [("label.unpredicted", 1_020)]),
    "shadowed": (
        shadowed,
        [(L, "a", role, 1, -1, 20) for role in ("champion", "shadow", "shadow")],
        [],
    ),
    "an event again": (again, [(L, "a", "champion", 1, -1, 20)], []),
    "an event again when the first is gone": (
        again_when_the_first_is_gone,
        [(M, "a", "champion", -1, -1, 1_010), (L, "a", "champion", 1, -1, 1_700)],
        [],
    ),
}
WITH_DEFAULT: dict[str, Case] = {
    "in time": (in_time, [(L, "a", "champion", 1, -1, 20)], []),
    "missing": (missing, [(M, "a", "champion", 0, -1, 1_010)], []),
    "late": (
        late,
        [(M, "a", "champion", 0, -1, 1_010), (T, "a", "champion", 1, 0, 1_011)],
        [("label.conflict", 2_013)],
    ),
}


@pytest.mark.parametrize("name", WITHOUT_DEFAULT)
def test_without_a_default_class(name: str) -> None:
    _check(Logs(shop()), *WITHOUT_DEFAULT[name])


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_with_a_default_class(name: str) -> None:
    _check(Logs(shop(missing="0")), *WITH_DEFAULT[name])


def _check(logs: Logs, make: Callable[[Logs], None], rows: list[Row], dead: list[tuple[str, int]]) -> None:
    make(logs)
    emission = logs.unit().step(logs.all(), 0)
    assert told(logs, emission) == rows
    assert reasons(emission.dead) == dead


def test_an_outcome_says_where_all_of_it_came_from() -> None:
    logs = Logs(shop())
    logs.event("z", 1)
    place = logs.event("a", 10)
    logs.vector(0, "z", 1)
    vector = logs.vector(place, "a", 10)
    logs.answer(0, "z", 1, 0)
    logs.answer(place, "a", 10, vector, score=0.75, label="review", predicted_class=1)
    logs.label("a", 1, 20, by="desk")
    unit = logs.unit(1)
    row = joined(logs, unit.step(logs.all(), 0))
    numbers = {
        "kind": 0, "event_time": 1_700_000_000_010, "label_time": 1_700_000_000_020, "label_class": 1,
        "previous_class": -1, "score": 0.75, "predicted_class": 1, "model_version": 3, "registry_offset": 9,
        "feature_hash": 7_001, "event_partition": 1, "event_offset": 1, "label_partition": 1, "label_offset": 2,
        "vector_partition": 1, "vector_offset": 1, "prediction_partition": 1, "prediction_offset": 1,
        "features.AT_NIGHT": 1.0, "features.SPENT": 1.1, "features.RISK": 1.2, "unit": 1,
    }  # fmt: skip
    assert {name: row[name].array.tolist() for name in numbers} == {n: [v] for n, v in numbers.items()}
    texts = {
        "event_id": b"a", "key": b"c", "label": b"1", "label_source": b"desk", "predicted": b"review",
        "model_name": b"shop", "model_digest": b"d3", "role": b"champion", "probabilities": b"\0",
    }  # fmt: skip
    assert {name: row[name].strings.to_list() for name in texts} == {n: [v] for n, v in texts.items()}


def test_a_shadow_row_carries_the_shadow_s_answer_beside_the_same_vector() -> None:
    logs = Logs(shop())
    logs.whole("a", 10, shadows=(5, 6))
    logs.label("a", 1, 20)
    rows = joined(logs, logs.unit().step(logs.all(), 0))
    assert rows["model_version"].array.tolist() == [3, 5, 6]
    assert rows["score"].array.tolist() == [0.25, 0.5, 0.5]
    assert rows["prediction_offset"].array.tolist() == [0, 0, 1]
    assert rows["features.SPENT"].array.tolist() == [0.1, 0.1, 0.1]


def test_probabilities_of_several_classes_go_through() -> None:
    logs = Logs(shop(classes="[0, 1, 2]"))
    chances = np.array([0.2, 0.3, 0.5])
    logs.whole("a", 10, probabilities=b"\x06" + chances.tobytes() + b"\0", predicted_class=2, score=0.5)
    logs.label("a", 2, 20)
    row = joined(logs, logs.unit().step(logs.all(), 0))
    assert row["probabilities"].strings.to_list() == [b"\x06" + chances.tobytes() + b"\0"]
    assert row["label"].strings.to_list() == [b"2"]


def test_a_letter_holds_the_label_as_it_can_be_sent_again() -> None:
    logs = Logs(shop())
    logs.whole("a", 10)
    logs.label("a", 1, 20)
    logs.label("a", 0, 30, by="desk")
    (letter,) = logs.unit().step(logs.all(), 0).dead
    assert (letter.topic, letter.partition, letter.key) == ("shop.labels.v1", 0, b"c")
    assert letter.value is not None
    label = logs.made.labels.program.decode(_one(letter.value[5:])).batch
    assert label["order_id"].strings.to_list() == [b"a"]
    assert label["by"].strings.to_list() == [b"desk"]
    assert label["returned"].array.tolist() == [0]


def _one(value: bytes) -> Strings:
    return Strings.of([value])


def test_another_vector_than_the_one_predicted_from_is_fatal() -> None:
    logs = Logs(shop())
    place = logs.event("a", 10)
    logs.answer(place, "a", 10, logs.vector(place, "a", 10, feature_hash=1))
    logs.label("a", 1, 20)
    with pytest.raises(Fatal, match="offset 0: the prediction's feature hash is not the vector's"):
        logs.unit().step(logs.all(), 0)


def test_a_label_waits_for_vector_prediction_and_shadow_and_holds_up_what_follows() -> None:
    logs = Logs(shop())
    logs.whole("a", 10, shadows=(5,))
    logs.whole("b", 11)
    logs.label("a", 1, 20)
    logs.label("b", 0, 21)
    accepted, features, predictions, shadows = (logs.polled(topic) for topic in logs.topics)
    unit = logs.unit()
    for part in (accepted, features, predictions):
        emission = unit.step([part], 0)
        assert emission.outs == []
        assert emission.next_offsets == {part.topic: len(part)}
    assert words(logs, unit) == [(11, False)]
    assert unit.held() == {accepted.topic: 2}
    assert [row[1] for row in told(logs, unit.step([shadows], 0))] == ["a", "a", "b"]
    assert words(logs, unit) == [(21, False)]
    assert unit.held() == dict.fromkeys(list(logs.topics)[1:], 0)


def test_a_silent_end_is_idle_only_when_nothing_waits() -> None:
    logs = Logs(shop())
    logs.whole("a", 10)
    logs.label("a", 1, 20)
    logs.progress(30, idle=True)
    accepted, *others = logs.all()
    unit = logs.unit()
    unit.step([accepted], 0)
    assert words(logs, unit) == [(10, False)]
    unit.step(others, 0)
    assert words(logs, unit) == [(30, True)]
    assert words(logs, unit) == []


def test_what_is_older_than_horizon_and_hold_is_forgotten() -> None:
    logs = Logs(shop())
    for at in range(50):
        logs.whole(f"e{at}", 10 * at)
        logs.label(f"early{at}", 1, 10 * at, of=10 * at)
    logs.progress(5_000)
    unit = logs.unit()
    unit.step(logs.all(), 0)
    kept = unit.snapshot()
    assert kept["slots"].shape[0] == kept["early"].shape[0] == kept["ids|lengths"].size == 0
