"""Feedback on the real broker: killed again and again it leaves the one ledger that the logs allow."""

import random
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from schemas import platform_schema
from services.cli.journey import Journey
from services.feedback.score_unit import ScoreUnit
from services.stack.endpoints import Endpoints
from shared.codec.batch import Batch, Strings
from shared.contracts.generated import labeled_schema
from shared.control.records import Record, Records
from shared.kafka.reader import read_topic
from shared.kafka.transactions import producer_config
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.topics import DLQ, LABELED, PROFILES, SCORES
from tests.unit.contracts import texts
from tests.unit.feedback.makers import LABEL, Logs, profiles, shop_toml, values_of

pytestmark = pytest.mark.integration
EVENTS, PIECES = 400, 4
POLICY = "[policy.scores]\nwindow = 50\nevery = 20\n[policy.retrain]\n[policy.drift]\nprofile_rows = 100\n"
EXACT = ("sequence", "order_time", "kind", "label_class", "previous_class", "event_partition", "event_offset",
         "label_offset", "vector_offset", "prediction_offset", "score", "features.SPENT")  # fmt: skip
SCORED = ("sequence", "value", "rows", "total", "coverage")


@pytest.fixture
def journey(stack: Endpoints, pipeline_name: str, tmp_path: Path) -> Journey:
    assert stack.bootstrap_servers
    folder = tmp_path / pipeline_name
    folder.mkdir()
    (folder / "pipeline.toml").write_text(
        shop_toml(more=POLICY).replace('name = "shop"', f'name = "{pipeline_name}"', 1)
    )
    (folder / "event.avsc").write_text(texts.EVENT)
    (folder / "label.avsc").write_text(LABEL)
    return Journey(folder, only=("feedback",), services="loop")


def _logs(journey: Journey, partition: int) -> Logs:
    """Events with labels that are early, late, twice, contradicted, corrected, of nobody, or missing."""
    dice = random.Random(partition)
    logs, acts = Logs(journey.pipeline, journey.schema_ids), []
    for n in range(EVENTS):
        at = 20 * n + partition
        acts.append((at, "event", f"e{n}", 0, False))
        for again in range(dice.choice([0, 1, 1, 1, 2, 3])):
            delay = dice.choice([-15, 30, 300, 900, 1_200, 1_600]) + again
            acts.append((at + delay, "label", f"e{n}", dice.randrange(2), dice.random() < 0.2))
        if n % 40 == 7:
            acts.append((at, "label", f"nobody{n}", 1, False))
    for at, kind, ident, outcome, fixed in sorted(acts):
        if kind == "label":
            logs.label(ident, outcome, max(0, at), of=max(0, at), fixed=fixed)
        elif dice.random() < 0.02:
            logs.vector(logs.event(ident, at), ident, at)
        else:
            score = dice.randrange(10) / 10
            shadows = (7,) if dice.random() < 0.3 else ()
            logs.whole(ident, at, shadows, score=score, predicted_class=int(score >= 0.5))
    logs.whole("last", 20 * EVENTS + 3_000)
    logs.progress(20 * EVENTS + 5_000)
    return logs


def _expected(journey: Journey, logs: list[Logs]) -> tuple[Batch, Batch, list[Record], int]:
    """The ledger, its figures, the profiles of answers and the number of dead letters, folded in this process."""
    labeled = Table.of("labeled", 1, labeled_schema(journey.pipeline))
    scores = Table.of("scores", 2, platform_schema("score"))
    values: list[bytes] = []
    told: list[Record] = []
    dead = 0
    for number, own in enumerate(logs):
        unit = own.unit(number)
        emission = unit.step(own.all(), 0)
        values += values_of(emission, own.made.joined.topic)
        values += [value for out in unit.progress() for value in out.values.to_list()]
        told += profiles(own, emission)
        dead += len(emission.dead)
    score = ScoreUnit(journey.pipeline, logs[0].made.joined, labeled, scores)
    outs = score.step([_polled(logs[0].made.joined.topic, values)], 0).outs
    ledger, figures = (
        table.read(_polled(table.topic, out.values.to_list()))
        for table, out in zip((labeled, scores), outs, strict=True)
    )
    return ledger, figures, told, dead


def _polled(topic: str, values: list[bytes]) -> Polled:
    none, offsets = np.zeros(len(values), np.bool_), np.arange(len(values))
    return Polled(topic, 0, Strings.of(values), none, Strings.of(values), none, offsets, offsets)


def _send(journey: Journey, logs: list[Logs], piece: int) -> None:
    """The next piece of every log, each of the four topics cut elsewhere."""
    producer = Producer(producer_config(journey.platform.kafka, "none"))
    for partition, own in enumerate(logs):
        for shift, (topic, values) in enumerate(own.topics.items()):
            first, end = ((len(values) * max(0, 5 * p - shift)) // (5 * PIECES) for p in (piece, piece + 1))
            for value in values[first : len(values) if piece == PIECES - 1 else end]:
                producer.produce(topic, value, b"c", partition=partition)
    assert producer.flush(30) == 0


def _columns(rows: Batch, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return list(zip(*(rows[name].array.tolist() for name in names), strict=True))


def test_kills_neither_lose_nor_double_nor_reorder_an_outcome(journey: Journey) -> None:
    logs = [_logs(journey, partition) for partition in range(journey.pipeline.partitions)]
    ledger, figures, answered, dead = _expected(journey, logs)
    assert len(answered) >= 2 * journey.pipeline.partitions
    assert ledger.rows > EVENTS
    assert {"LABEL", "LATE", "CORRECTION"} <= {
        ("LABEL", "MISSING", "LATE", "CORRECTION")[k] for k in ledger["kind"].array.tolist()
    }
    name = journey.pipeline.name
    with journey:
        for piece in range(PIECES):
            _send(journey, logs, piece)
            journey.wait_for(LABELED.of(name), (piece * ledger.rows) // (2 * PIECES))
            journey.supervisor.kill("feedback-join")
            journey.supervisor.kill("feedback-score")
        journey.wait_for(LABELED.of(name), ledger.rows)
        journey.wait_for(SCORES.of(name), figures.rows)
        journey.wait_for(DLQ.of(name), dead)
        journey.wait_for(PROFILES.of(name), len(answered))
    schema = labeled_schema(journey.pipeline)
    found = journey.rows(LABELED.of(name), schema, EXACT)
    assert _columns(found, EXACT) == _columns(ledger, EXACT)
    assert found["sequence"].array.tolist() == list(range(ledger.rows))
    said = journey.rows(SCORES.of(name), platform_schema("score"), SCORED)
    assert _columns(said, SCORED) == _columns(figures, SCORED)
    letters = journey.rows(DLQ.of(name), platform_schema("dead_letter"), ("offset", "partition"))
    assert letters.rows == dead
    records = Records.of(PROFILES, name, journey.schema_ids)
    stand = [
        each for part in read_topic(journey.platform.kafka, records.topic) for each in records.read(part)
    ]
    place = itemgetter("unit", "number")
    assert sorted(stand, key=place) == sorted(answered, key=place)
