"""Dirty labels through the whole path: what has matured is what the same outcomes give when they come clean.

Which labels are sent stands in told_labels.py; what becomes of each kind in docs/feedback.md.
"""

import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas import platform_schema
from services.cli.journey import Journey
from services.cli.letters import read_letters
from services.cli.untrained import announce_untrained
from services.retrainer.core.ledger import CORRECTION, LABEL, LearningRows, learnable
from services.retrainer.core.segments import ledger_rows, seal, unseal
from services.retrainer.ledger import KafkaLedger
from services.stack.endpoints import Endpoints
from services.stack.supervisor import RestartPolicy
from shared.codec.batch import Batch, Strings
from shared.codec.frame import split_frames
from shared.codec.program import compile_program
from shared.contracts.generated import accepted_schema
from shared.topics import ACCEPTED, SCORES
from tests.e2e.told_labels import Stream, Telling, declare

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ONLY = ("ingest", "features", "inference", "feedback")
STEP = 500
KILLED = ("feedback-join", "feedback-score")
Figures = dict[tuple[Any, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Left:
    """What a run left behind: final figures, ledger, what is learnt from it, dead letters, labels accepted."""

    told: Telling
    figures: Figures
    ledger: Batch
    learnt: LearningRows
    letters: Counter[tuple[str, str]]
    accepted: int
    restarts: int


def run(folder: Path, how: str, kills: bool = False) -> Left:
    """Tell the stream as the `Stream` method `how` does; with `kills` feedback dies in the middle of steps."""
    declared = declare(folder, f"labels-{how}-{uuid.uuid4().hex[:8]}")
    journey = Journey(declared, only=ONLY, services="loop", policy=RestartPolicy(allowed=50))
    stream = Stream(journey.pipeline, declared)
    told = stream.flipped(min(stream.known)) if how == "flipped" else getattr(stream, how)()
    script = stream.script(told)
    announce_untrained(journey)
    due = [len(script) * part // 8 for part in (3, 5)] if kills else []

    def strike(sent: int, _total: int) -> None:
        if due and sent >= due[0] and all(journey.supervisor.kill(service) for service in KILLED):
            due.pop(0)

    with journey:
        journey.replay_in_steps(script, STEP, watch=strike)
        restarts = sum(journey.supervisor.restarts().values())
    assert not due
    return _left(journey, told, restarts)


def _left(journey: Journey, told: Telling, restarts: int) -> Left:
    kafka, pipeline = journey.platform.kafka, journey.pipeline
    ledger = KafkaLedger.of(kafka, pipeline, journey.schema_ids)
    rows = ledger.read(0, 0, ledger.end()).batch
    table = unseal(seal(rows, ledger.program))
    accepted = journey.rows(ACCEPTED.of(pipeline.name), accepted_schema(pipeline), ["label"])
    return Left(
        told=told,
        figures=_figures(journey),
        ledger=rows,
        learnt=learnable(ledger_rows([table], pipeline.feature_names)),
        letters=_letters(journey),
        accepted=int(np.count_nonzero(accepted["label"].array)),
        restarts=restarts,
    )


def _figures(journey: Journey) -> Figures:
    """Every final figure as it was said last, by what it speaks of."""
    texts = ("role", "slice", "metric", "window", "state")
    numbers = ("model_version", "total", "value", "rows", "coverage", "order_time")
    found = journey.rows(SCORES.of(journey.pipeline.name), platform_schema("score"), [*texts, *numbers])
    columns = [found[name].strings.to_list() for name in texts]
    columns += [found[name].array.tolist() for name in numbers]
    return {(*row[:4], *row[5:7]): tuple(row[7:]) for row in zip(*columns, strict=True) if row[4] == b"final"}


def _letters(journey: Journey) -> Counter[tuple[str, str]]:
    """Dead letters by event id and reason; each holds the label in the pinned schema."""
    label = journey.pipeline.label
    assert label is not None
    letters = read_letters(journey.platform.kafka, journey.pipeline.name)
    assert {letter.topic for letter in letters} <= {journey.topic("labels.v1")}
    _, datums, _ = split_frames(Strings.of([letter.value or b"" for letter in letters]))
    ids = compile_program(label.avro).decode(datums).batch[label.id].strings.to_list()
    return Counter((ident.decode(), letter.reason) for ident, letter in zip(ids, letters, strict=True))


def alike(one: Figures, two: Figures) -> bool:
    """Whether both say the same of the same; values as near as scores that fell into other batches are."""
    if one.keys() != two.keys():
        return False
    return all(one[key] == (pytest.approx(two[key][0], abs=1e-6), *two[key][1:]) for key in one)


def same_lessons(one: LearningRows, two: LearningRows) -> bool:
    """Whether both say the same of the same events, in whichever order outcomes became known."""
    mine, theirs = (rows.pick(np.argsort(rows.ids)) for rows in (one, two))
    return all(
        np.array_equal(getattr(mine, name), getattr(theirs, name))
        for name in ("ids", "classes", "event_times", "matrix")
    )


@pytest.fixture(scope="module")
def clean(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Left:
    assert stack.bootstrap_servers
    return run(tmp_path_factory.mktemp("schemas"), "well")


@pytest.fixture(scope="module")
def dirty(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Left:
    assert stack.bootstrap_servers
    return run(tmp_path_factory.mktemp("schemas"), "badly", kills=True)


def test_clean_labels_are_each_learnt_once(clean: Left) -> None:
    assert clean.ledger["kind"].array.tolist() == [LABEL] * len(clean.told.labels)
    assert len(clean.learnt) == clean.accepted == len(clean.told.labels)
    assert (clean.letters, clean.restarts) == (Counter(), 0)
    windows = {key[3].split(b":")[0] for key in clean.figures}
    assert windows == {b"rolling", b"all", b"day"}


def test_matured_figures_do_not_depend_on_how_labels_come(clean: Left, dirty: Left) -> None:
    assert dirty.restarts >= 2 * len(KILLED)
    assert alike(clean.figures, dirty.figures)


def test_the_training_set_does_not_depend_on_how_labels_come(clean: Left, dirty: Left) -> None:
    assert same_lessons(clean.learnt, dirty.learnt)
    assert not np.array_equal(clean.learnt.ids, dirty.learnt.ids), "the labels came in another order"


def test_every_bad_label_is_one_letter_with_its_reason(dirty: Left) -> None:
    assert dirty.letters == dirty.told.letters
    assert {"label.conflict", "label.orphan", "label.stale", "label.class"} == {r for _, r in dirty.letters}


def test_a_label_that_comes_again_is_dropped_at_the_door_or_counted_behind_it(dirty: Left) -> None:
    """In the same bytes it does not pass the door; in others it does, and brings no second outcome."""
    strange = sum(count for (_, reason), count in dirty.told.letters.items() if reason == "label.class")
    assert dirty.told.repeats > 0
    assert dirty.accepted == len(dirty.told.labels) - dirty.told.repeats - strange
    assert max(Counter(_ids(dirty, LABEL)).values()) == 1


def test_a_correction_revises_and_names_what_stood_before(dirty: Left) -> None:
    corrected = Counter(_ids(dirty, CORRECTION))
    assert corrected == Counter(dirty.told.corrected)
    rows = dirty.ledger.take(dirty.ledger["kind"].array == CORRECTION)
    assert np.array_equal(rows["previous_class"].array, 1 - rows["label_class"].array)


def test_an_early_label_waits_and_comes_out_with_its_event(dirty: Left) -> None:
    rows = dirty.ledger.take(dirty.ledger["kind"].array == LABEL)
    known = {
        ident.decode(): at - event
        for ident, at, event in zip(
            rows["event_id"].strings.to_list(),
            rows["label_time"].array.tolist(),
            rows["event_time"].array.tolist(),
            strict=True,
        )
    }
    assert dirty.told.early
    assert {known[each] for each in dirty.told.early} == {0}


def test_one_first_label_flipped_is_seen(clean: Left, stack: Endpoints, tmp_path: Path) -> None:
    """The comparisons above can fail: a wrong first label stands, and both see it."""
    assert stack.bootstrap_servers
    flipped = run(tmp_path, "flipped")
    assert flipped.letters == flipped.told.letters
    assert flipped.figures.keys() == clean.figures.keys()
    assert not alike(flipped.figures, clean.figures)
    assert not same_lessons(clean.learnt, flipped.learnt)
    assert np.array_equal(np.sort(clean.learnt.ids), np.sort(flipped.learnt.ids))


def _ids(left: Left, kind: int) -> list[str]:
    rows = left.ledger.take(left.ledger["kind"].array == kind)
    return [each.decode() for each in rows["event_id"].strings.to_list()]
