"""The story of a loop from what lies on its topics: places among the events, figures, versions, picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer import BadParameter

from services.cli.chronicle import Chronicle
from services.cli.drawing import draw
from services.cli.loop import lines, place, story_json
from services.cli.story import Answers, Ledger, Story, Telling, newest_outcomes
from services.cli.telling import parsed, tell
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.errors import Refused

EVENTS, DELAY, CHANGE = 1_000, 48, 600
"""Event i stands at order time 10 * i and arrives as offset i // 2 of partition i % 2; version 2 comes at 600."""


def answers(predicted: Any, score: Any = None, version: Any = None, offset: Any = None) -> Answers:
    numbers = np.arange(EVENTS)
    versions = np.where(numbers < CHANGE, 1, 2) if version is None else version
    offsets = np.where(numbers < CHANGE, 0, 3) if offset is None else offset
    scores = np.asarray(predicted, np.float64) if score is None else score
    shuffled = np.random.default_rng(1).permutation(EVENTS)
    columns = (numbers * 10, numbers % 2, numbers // 2, versions, offsets)
    rows: list[Any] = [np.asarray(column, np.int64)[shuffled] for column in columns]
    rows += [np.ones(EVENTS, np.bool_), np.asarray(predicted, np.int64)[shuffled], scores[shuffled]]
    return Answers(*rows).ordered()


def ledger(outcome: Any) -> Ledger:
    numbers = np.arange(EVENTS - DELAY)
    columns = ((numbers + DELAY) * 10, numbers % 2, numbers // 2, np.asarray(outcome)[: EVENTS - DELAY])
    rows: list[Any] = [np.asarray(column, np.int64) for column in columns]
    rows.append(np.ones(EVENTS - DELAY, np.bool_))
    return Ledger(*rows)


def telling(predicted: Any, outcome: Any, classes: int = 2, window: int = 100, **more: Any) -> Telling:
    return Telling(answers(predicted, **more), ledger(outcome), classes, positive=1, window=window)


TRUTH = np.random.default_rng(0).integers(0, 2, EVENTS)
RIGHT_LATER = np.where(np.arange(EVENTS) < CHANGE, 1 - TRUTH, TRUTH)


def alarm(sequence: int, order_time: int) -> dict[str, Any]:
    return {
        "id": f"performance/adwin/error/{sequence}",
        "family": "performance",
        "detector": "adwin",
        "subject": "error",
        "sequence": sequence,
        "order_time": order_time,
        "since_sequence": sequence - 50,
        "magnitude": 0.4,
        "threshold": 0.1,
        "triggers": True,
        "detail": "errors doubled",
    }


def run(step: str, sequence: int, **detail: Any) -> dict[str, Any]:
    return {"id": "first-199", "step": step, "sequence": sequence, "detail": json.dumps(detail)}


def decision(version: int, previous: str, state: str, sequence: int, reason: str = "x") -> dict[str, Any]:
    return {
        "kind": "model.transition",
        "model_version": version,
        "model_digest": f"{version:064x}",
        "previous": previous,
        "state": state,
        "reason": reason,
        "actor": "controller",
        "evidence": "",
        "labeled_sequence": sequence,
        "detail": json.dumps({"figures": {"difference": 0.1}}),
    }


AUDIT = [
    decision(1, "", "champion", -1, "bootstrap"),
    decision(2, "", "candidate", 540),
    decision(2, "candidate", "validated", 540, "gate.passed"),
    decision(1, "champion", "retired", 540, "replaced"),
    decision(2, "validated", "champion", 540),
    {**decision(2, "", "", 541), "kind": "model.accepted"},
]


def story(found: Telling, begin: int = 0, end: int | None = None) -> Story:
    runs = [run("trigger", 199), run("trigger", 199), run("train", 199), run("done", 199, kind="gbt")]
    return tell("p", found, [alarm(500, 5_480)], runs, AUDIT, begin, end)


def test_events_are_numbered_by_order_time_and_joined_with_their_outcomes() -> None:
    found = telling(TRUTH, TRUTH)
    assert found.answers.offset.tolist() == [i // 2 for i in range(EVENTS)]
    assert found.truth[: EVENTS - DELAY].tolist() == TRUTH[: EVENTS - DELAY].tolist()
    assert set(found.truth[EVENTS - DELAY :].tolist()) == {-1}


def test_the_newest_outcome_of_an_event_counts_and_a_shadows_never() -> None:
    log = Ledger(
        order_time=np.array([1, 2, 3, 4]),
        partition=np.array([0, 0, 0, 1]),
        offset=np.array([0, 0, 0, 0]),
        outcome=np.array([0, 1, 2, 1]),
        counts=np.array([True, True, False, True]),
    )
    assert newest_outcomes(answers(TRUTH), log)[:3].tolist() == [1, 1, -1]


def test_everything_stands_at_the_event_at_which_it_took_effect() -> None:
    told = story(telling(RIGHT_LATER, TRUTH))
    marks = {(mark.what, mark.version, mark.index) for mark in told.marks}
    assert marks == {
        ("promotion", 1, 0),
        ("trigger", None, 199 + DELAY + 1),
        ("training", None, 199 + DELAY + 1),
        ("alarm", None, 549),
        ("transition", 2, 540 + DELAY + 1),
        ("verdict", 2, 540 + DELAY + 1),
        ("transition", 1, 540 + DELAY + 1),
        ("promotion", 2, CHANGE),
    }
    assert [mark.index for mark in told.marks] == sorted(mark.index or 0 for mark in told.marks)
    alarmed = next(mark for mark in told.marks if mark.what == "alarm")
    assert alarmed.detail["since_index"] == 450 + DELAY + 1
    assert alarmed.figure == 0.0, "the figure just before it"


def test_figures_are_told_overall_and_by_version() -> None:
    told = story(telling(RIGHT_LATER, TRUTH))
    share = (EVENTS - DELAY - CHANGE) / (EVENTS - DELAY)
    assert told.metric == "accuracy"
    assert told.figures["accuracy"] == pytest.approx(share)
    first, second = told.reigns
    assert (first.version, first.first, first.events, first.figures["accuracy"]) == (1, 0, CHANGE, 0.0)
    assert (second.first, second.events, second.labelled) == (CHANGE, 400, 400 - DELAY)
    assert (second.state, second.figures["accuracy"]) == ("champion", 1.0)
    assert first.state == "retired"
    assert told.trail[-1][1] == 1.0


def test_a_version_that_comes_back_is_in_force_from_its_second_reign_on() -> None:
    numbers = np.arange(EVENTS)
    version = np.where((numbers >= 600) & (numbers < 800), 2, 1)
    offset = np.select([numbers < 600, numbers < 800], [0, 3], 5)
    found = telling(TRUTH, TRUTH, version=version, offset=offset)
    audit = [*AUDIT, decision(2, "champion", "rolled_back", 700), decision(1, "retired", "champion", 700)]
    told = tell("p", found, [], [], audit)
    crowned = [(mark.version, mark.index) for mark in told.marks if mark.what == "promotion"]
    assert crowned == [(1, 0), (2, 600), (1, 800)]
    assert [m.version for m in told.marks if m.what == "rollback"] == [2]


def test_a_promotion_that_no_event_has_seen_yet_has_no_index() -> None:
    audit = [*AUDIT, decision(3, "validated", "champion", 900)]
    told = tell("p", telling(TRUTH, TRUTH), [], [], audit)
    assert [mark.index for mark in told.marks if mark.version == 3] == [None]
    assert told.reigns[-1].first is None


def test_rare_positives_are_told_by_their_ranking() -> None:
    random = np.random.default_rng(3)
    truth = (random.random(EVENTS) < 0.05).astype(np.int64)
    score = np.clip(0.2 * truth + random.random(EVENTS) * 0.5, 0, 1)
    told = story(telling(np.zeros(EVENTS), truth, score=score, window=300))
    assert told.metric == "roc_auc"
    assert told.figures["accuracy"] > 0.9
    assert 0.6 < told.figures["roc_auc"] < 0.95
    assert all(0.0 <= value <= 1.0 for _, value in told.trail)


def test_several_classes_are_told_by_accuracy() -> None:
    truth = np.random.default_rng(4).integers(0, 5, EVENTS)
    told = story(telling(truth, truth, classes=5))
    assert (told.metric, told.figures) == ("accuracy", {"accuracy": 1.0})


def test_a_part_of_the_events_is_a_story_too() -> None:
    told = story(telling(RIGHT_LATER, TRUTH), begin=560, end=700)
    assert (told.events, told.labelled) == (140, 140)
    assert {mark.index for mark in told.marks} == {589, CHANGE}
    assert told.figures["accuracy"] == pytest.approx(100 / 140)
    assert told.trail[0][0] >= 560


@pytest.mark.parametrize(("begin", "end"), [(5_000, None), (EVENTS, None), (700, 560), (0, 0)])
def test_a_part_without_an_event_is_refused(begin: int, end: int | None) -> None:
    with pytest.raises(Refused, match=f"no event from {begin} to .*p has {EVENTS}, from 0 to {EVENTS - 1}"):
        story(telling(RIGHT_LATER, TRUTH), begin, end)


def test_before_the_first_outcome_there_are_no_figures() -> None:
    none: Any = np.empty(0, np.int64)
    empty = Ledger(none, none, none, none, none.astype(np.bool_))
    told = tell("p", Telling(answers(TRUTH), empty, 2, 1, 100), [], [], AUDIT[:1])
    assert (told.labelled, told.figures, list(told.trail)) == (0, {}, [])
    assert "no figures yet" in lines(told)[0]
    assert json.loads(json.dumps(story_json(told)))["accuracy"] is None


def test_it_is_told_as_json_as_text_and_as_a_picture(tmp_path: Path) -> None:
    told = story(telling(RIGHT_LATER, TRUTH))
    said = json.loads(json.dumps(story_json(told)))
    assert said["counts"] == {
        "promotion": 2,
        "trigger": 1,
        "training": 1,
        "alarm": 1,
        "transition": 2,
        "verdict": 1,
    }
    assert said["versions"][1]["first"] == CHANGE
    text = "\n".join(lines(told))
    assert "promotion: version 2 validated → champion" in text
    assert "training: first-199 done: gbt" in text
    draw(told, tmp_path / "loop.png")
    assert (tmp_path / "loop.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_place_is_a_number_or_a_time() -> None:
    chronicle = Chronicle(load_pipeline(find_pipeline("elec2")), telling(TRUTH, TRUTH), [], [], [])
    assert place(chronicle, None) is None
    assert place(chronicle, "17") == 17
    assert place(chronicle, "1970-01-01T00:00:00.100Z") == 10
    assert place(chronicle, "1970-01-01T00:00:00.105") == 11
    with pytest.raises(BadParameter, match="neither"):
        place(chronicle, "soon")


def test_a_detail_that_is_no_json_stands_as_its_text() -> None:
    assert parsed("3 of 7 rows") == {"text": "3 of 7 rows"}
    assert parsed("[1]") == {"text": "[1]"}
