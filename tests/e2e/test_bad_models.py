"""Hostile models beside a serving one: each is refused with its reason, and the old one goes on answering."""

import io
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastavro import parse_schema, schemaless_reader

from schemas import platform_schema
from services.cli.checking import exactly_once
from services.cli.journey import Journey
from services.cli.letters import read_letters
from services.cli.untrained import announce_untrained, untrained_model
from services.cli.variants import write_variant
from services.retrainer.releases import ModelsTopic
from services.stack.endpoints import Endpoints
from shared.codec.frame import FRAME_BYTES
from shared.kafka.reader import read_topic
from shared.models.announcement import Announcement
from shared.models.signing import KeyFolder
from shared.settings import home
from shared.store.artefacts import ArtefactStore
from shared.topics import AUDIT
from tests.e2e.bad_models import CASES, Forge, fails_on_large_numbers
from tests.e2e.traffic import Answers, longest_gap_s, now_ms
from tests.e2e.vectors import ROWS_A_TICK, Vectors

pytestmark = pytest.mark.e2e

DECLARED = Path(__file__).parent / "hostile"
STALL_S = 5.0
PATIENCE_S = 120.0
POISONED = 40


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
    first = announce_untrained(journey)
    trap = Trap()
    store_root = Path(journey.platform.artefacts_url)
    forge = Forge(
        honest=untrained_model(journey),
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
