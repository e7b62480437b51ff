"""Hostile models beside a serving one: each is refused with its reason, and the old one goes on answering."""

import io
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_reader

from schemas import platform_schema
from services.cli.checking import exactly_once
from services.cli.journey import Journey
from services.cli.letters import read_letters
from services.cli.variants import write_variant
from services.retrainer.releases import ModelsTopic
from services.stack.endpoints import Endpoints
from shared.codec.batch import Batch, Floats, Strings
from shared.codec.frame import FRAME_BYTES
from shared.codec.hashing import partition_of
from shared.contracts.generated import features_schema
from shared.kafka.reader import read_topic
from shared.kafka.transactions import producer_config
from shared.models.announcement import Announcement
from shared.models.signing import KeyFolder
from shared.runtime.tables import Table
from shared.settings import home
from shared.store.artefacts import ArtefactStore
from shared.topics import AUDIT, FEATURES
from tests.e2e.bad_models import CASES, Forge, fails_on_large_numbers
from tests.e2e.support import announce_quick_model, quick_model
from tests.e2e.traffic import Answers, longest_gap_s, now_ms

pytestmark = pytest.mark.e2e

DECLARED = Path(__file__).parent / "hostile"
ROWS_A_TICK = 20
TICK_S = 0.1
STALL_S = 5.0
PATIENCE_S = 120.0
POISONED = 40


class Vectors:
    """Writes feature vectors as the features service would."""

    def __init__(self, journey: Journey) -> None:
        topic = FEATURES.of(journey.pipeline.name)
        self._table = Table.of(topic, journey.schema_ids[topic], features_schema(journey.pipeline))
        self._names = journey.pipeline.feature_names
        self._partitions = journey.pipeline.partitions
        self._producer = Producer(producer_config(journey.platform.kafka, "none"))
        self._numbers = count()
        self.ids: list[str] = []

    def send(self, matrix: Floats) -> list[str]:
        """One event a row; their ids."""
        numbers = [next(self._numbers) for _ in matrix]
        ids = [f"v{number:06d}" for number in numbers]
        keys = Strings.of([f"k{number % 50}".encode() for number in numbers])
        values = self._table.write(self._rows(ids, keys, matrix)).to_list()
        places = partition_of(keys, self._partitions).tolist()
        for value, key, place in zip(values, keys.to_list(), places, strict=True):
            self._producer.produce(self._table.topic, value, key, place)
        self._producer.flush(30.0)
        self.ids += ids
        return ids

    def _rows(self, ids: Sequence[str], keys: Strings, matrix: Floats) -> Batch:
        rows = len(ids)
        columns: dict[str, Any] = {
            "event_id": Strings.of([each.encode() for each in ids]),
            "key": keys,
            "late": np.zeros(rows, np.bool_),
        }
        for name in ("event_time", "order_time"):
            columns[name] = np.full(rows, now_ms(), np.int64)
        numbers = (
            "source_partition",
            "source_offset",
            "input_partition",
            "input_offset",
            "feature_hash",
        )
        columns |= {name: np.zeros(rows, np.int64) for name in numbers}
        return Batch.of(columns | {f"features.{n}": matrix[:, i].copy() for i, n in enumerate(self._names)})

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Small vectors beside the block, 200 a second."""
        stop = threading.Event()
        chance = np.random.default_rng(58)

        def run() -> None:
            while not stop.wait(TICK_S):
                self.send(chance.random((ROWS_A_TICK, len(self._names))))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@dataclass(slots=True)
class Serving:
    """An inference service that answers with one honest model."""

    journey: Journey
    vectors: Vectors
    answers: Answers
    forge: Forge
    topic: ModelsTopic
    serving: Announcement
    trap: "Trap"
    _schema: Any = field(default_factory=lambda: parse_schema(platform_schema("audit")))

    def audit(self) -> list[dict[str, Any]]:
        """Everything said of models so far."""
        topic = AUDIT.of(self.journey.pipeline.name)
        return [
            cast(dict[str, Any], schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), self._schema, None))
            for polled in read_topic(self.journey.platform.kafka, topic)
            for value in polled.values.to_list()
        ]

    def heard(self, kind: str, offsets: set[int]) -> dict[int, list[str]]:
        """Reasons by offset of the records of a kind, once all `offsets` have one; fails when they do not come."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            said = [each for each in self.audit() if each["kind"] == kind]
            found: dict[int, list[str]] = {}
            for each in said:
                found.setdefault(each["registry_offset"], []).append(each["reason"])
            if offsets <= set(found):
                return found
            time.sleep(0.5)
        raise AssertionError(f"no {kind} for {sorted(offsets - set(found))} within {PATIENCE_S:.0f} s")


class Trap:
    """Listens, and counts who comes."""

    def __init__(self) -> None:
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.setblocking(False)
        self.address = f"http://127.0.0.1:{self._door.getsockname()[1]}"

    def visits(self) -> int:
        """Connections that wait."""
        found = 0
        while True:
            try:
                link, _ = self._door.accept()
            except BlockingIOError:
                return found
            link.close()
            found += 1

    def close(self) -> None:
        self._door.close()


@pytest.fixture(scope="module")
def serving(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = write_variant(DECLARED, tmp_path_factory.mktemp("schemas"), f"models-{uuid.uuid4().hex[:8]}")
    assert stack.home == home()
    journey = Journey(folder, only=["inference"])
    first = announce_quick_model(journey)
    trap = Trap()
    store_root = Path(journey.platform.artefacts_url)
    forge = Forge(
        honest=quick_model(journey),
        store=ArtefactStore(str(store_root)),
        root=store_root,
        key=KeyFolder(home() / "keys").signer(),
        name=journey.pipeline.model.name,
        told=tmp_path_factory.mktemp("told") / "opened",
        trap=trap.address,
        now_ms=now_ms(),
    )
    topic = ModelsTopic(journey.platform.kafka, journey.pipeline, journey.schema_ids)
    vectors = Vectors(journey)
    with journey, Answers(journey).watched() as answers:
        answers.wait_for(
            vectors.send(np.ones((ROWS_A_TICK, len(journey.pipeline.feature_names)))), PATIENCE_S
        )
        yield Serving(journey, vectors, answers, forge, topic, first, trap)
    trap.close()


def test_hostile_models_are_refused_and_the_old_one_goes_on(serving: Serving) -> None:
    forge, vectors, answers = serving.forge, serving.vectors, serving.answers
    started = time.monotonic()
    with vectors.flowing():
        due = {serving.topic.write(make(forge)): (name, reason) for name, (reason, make) in CASES.items()}
        refused = serving.heard("model.rejected", set(due))
    answers.wait_for(vectors.ids, 30.0)
    seen = {due[offset][0]: reasons for offset, reasons in refused.items()}
    assert seen == {name: [reason] for name, reason in due.values()}
    assert not forge.told.exists(), "a pickle was opened"
    assert serving.trap.visits() == 0
    assert exactly_once(vectors.ids, [each.event_id for each in answers.all]).holds
    assert {each.model_digest for each in answers.all} == {serving.serving.digest}
    assert longest_gap_s([each.seen_at for each in answers.all if each.seen_at > started]) < STALL_S
    assert not any(serving.journey.supervisor.restarts().values())


def test_a_model_that_fails_at_run_time_spoils_its_rows_alone_and_is_taken_back(serving: Serving) -> None:
    forge, vectors, answers = serving.forge, serving.vectors, serving.answers
    width = len(serving.journey.pipeline.feature_names)
    offset = serving.topic.write(forge.signed(fails_on_large_numbers(forge)))
    serving.heard("model.accepted", {offset})
    good = vectors.send(np.full((5, width), 0.5))
    answers.wait_for(good, 30.0)
    bad = [vectors.send(np.full((1, width), 1_000.0))[0] for _ in range(POISONED)]
    assert serving.heard("model.rolled_back", {offset})[offset] == ["model.nonfinite"]
    after = vectors.send(np.full((5, width), 1_000.0))
    answers.wait_for(after, 30.0)

    letters = read_letters(serving.journey.platform.kafka, serving.journey.pipeline.name)
    answered = {each.event_id: each.model_digest for each in answers.all}
    assert {letter.reason for letter in letters} == {"model.nonfinite"}
    assert len({letter.place for letter in letters}) == len(letters) > 10
    assert len(letters) + sum(each in answered for each in bad) == POISONED
    assert {answered[each] for each in after} == {serving.serving.digest}
    assert exactly_once([*vectors.ids], [*answered, *(e for e in bad if e not in answered)]).holds
    assert not any(serving.journey.supervisor.restarts().values())
