"""One inference worker on the real broker: roles, swaps in a transaction, and the gauge of what is obeyed."""

import io
import json
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_reader

from schemas import platform_schema
from services.cli.journey import Journey
from services.cli.lockstep import read_gauge
from services.cli.untrained import untrained_model
from services.cli.variants import write_variant
from services.inference.core.routing import Router
from services.stack.endpoints import Endpoints
from shared.codec.batch import Strings
from shared.codec.frame import FRAME_BYTES, frame_prefix
from shared.codec.program import compile_program
from shared.kafka.reader import read_topic
from shared.kafka.transactions import producer_config
from shared.models.announcement import Announcement, announcement_batch
from shared.models.signing import KeyFolder, sign
from shared.settings import home
from shared.store.artefacts import ArtefactStore
from shared.topics import ATTRIBUTIONS, AUDIT, MODELS, PREDICTIONS, SHADOWS
from tests.e2e.test_bad_models import DECLARED
from tests.e2e.traffic import now_ms
from tests.e2e.vectors import Vectors

pytestmark = pytest.mark.integration
PATIENCE_S = 90.0
SHARE = 0.4
ROWS = 150
Record = dict[str, Any]


@dataclass
class Worker:
    """A worker that serves alone, the topic that rules it, and what it wrote."""

    journey: Journey
    vectors: Vectors
    sequence: int = 0

    def __post_init__(self) -> None:
        self._key = KeyFolder(home() / "keys").signer()
        self._store = ArtefactStore(self.journey.platform.artefacts_url)
        self._topic = MODELS.of(self.journey.pipeline.name)
        self._program = compile_program(platform_schema("model"))
        config = producer_config(self.journey.platform.kafka, "none")
        self._producer = Producer({**config, "transactional.id": uuid.uuid4().hex})
        self._producer.init_transactions(30.0)
        self._end = 0

    def version(self, number: int, state: str, *, stored: bool = True, **more: Any) -> Announcement:
        """The next announcement: version `number` is always the same model."""
        pipeline = self.journey.pipeline
        artefact = untrained_model(self.journey, seed=number)
        if stored:
            self._store.put(artefact)
        self.sequence += 1
        said = Announcement(
            pipeline.model.name,
            number,
            artefact.digest,
            pipeline.feature_fingerprint,
            self.sequence,
            now_ms(),
            state=state,
        )
        return sign(replace(said, **more), self._key)

    def announce(self, *said: Announcement, commit: bool = True) -> list[int]:
        """Write these in one transaction; their offsets, known once it stands."""
        prefix = frame_prefix(self.journey.schema_ids[self._topic])
        offsets: list[int] = []
        self._producer.begin_transaction()
        for each in said:
            value = self._program.encode(announcement_batch([each]), prefix).to_list()[0]
            self._producer.produce(
                self._topic,
                value,
                f"{each.name}@{each.version}".encode(),
                on_delivery=lambda _, sent: offsets.append(sent.offset() or 0),
            )
        self._producer.flush(30.0)
        if commit:
            self._producer.commit_transaction(30.0)
        else:
            self._producer.abort_transaction(30.0)
        self._end = offsets[-1] + 2
        return offsets

    def obeyed(self) -> int:
        """What the worker says of itself; -1 before it has."""
        note = home() / "run" / f"{self.journey.pipeline.name}.inference-0.json"
        try:
            with urllib.request.urlopen(json.loads(note.read_text())["url"] + "/metrics") as answer:
                return int(read_gauge(answer.read().decode(), "millrace_models_offset"))
        except OSError:
            return -1

    def wait_until_obeyed(self, offset: int | None = None) -> None:
        """Return when the worker says so of `offset`: by default behind the last transaction and its marker.

        A commit returns before its marker is written, so that the broker's own word on the end comes too early.
        """
        end, deadline = self._end if offset is None else offset, time.monotonic() + PATIENCE_S
        while (now := self.obeyed()) != end:
            assert now < end, f"obeyed {now}, there are {end}"
            assert time.monotonic() < deadline, f"obeyed {now} of {end}"
            time.sleep(0.05)

    def answered(self, ids: Sequence[str], topic: str = PREDICTIONS.name, each: int = 1) -> list[Record]:
        """What is said of these events, in any order; waits until there are `each` of every one."""
        deadline, wanted = time.monotonic() + PATIENCE_S, set(ids)
        while time.monotonic() < deadline:
            found = [
                r for r in self._records(f"{self.journey.pipeline.name}.{topic}") if r["event_id"] in wanted
            ]
            if len(found) >= each * len(wanted):
                return found
            time.sleep(0.2)
        raise AssertionError(f"{len(found)} of {each * len(wanted)} records on {topic}")

    def verdicts(self, offsets: Sequence[int]) -> list[tuple[str, str, str]]:
        """Kind, state and reason of what was said of the announcements at `offsets`, in their order."""
        said = {r["registry_offset"]: r for r in self._records(AUDIT.of(self.journey.pipeline.name))}
        return [(said[o]["kind"], said[o]["state"], said[o]["reason"]) for o in offsets]

    def _records(self, topic: str) -> list[Record]:
        schema = {AUDIT.name: "audit", ATTRIBUTIONS.name: "attribution"}
        parsed = parse_schema(platform_schema(schema.get(topic.partition(".")[2], "prediction")))
        return [
            cast(Record, schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), parsed, None))
            | {"partition": polled.partition}
            for polled in read_topic(self.journey.platform.kafka, topic)
            for value in polled.values.to_list()
        ]


@pytest.fixture(scope="module")
def worker(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    assert stack.home == home()
    folder = write_variant(DECLARED, tmp_path_factory.mktemp("schemas"), f"roles-{uuid.uuid4().hex[:8]}")
    journey = Journey(folder, {}, {"MILLRACE_INFERENCE__ATTRIBUTION_SHARE": "1"}, ["inference"])
    with journey:
        yield Worker(journey, Vectors(journey))


def _send(worker: Worker) -> list[str]:
    width = len(worker.journey.pipeline.feature_names)
    return worker.vectors.send(np.random.default_rng(worker.sequence).random((ROWS, width)))


def test_an_empty_topic_is_obeyed_as_it_is(worker: Worker) -> None:
    worker.wait_until_obeyed(0)


def test_roles_are_obeyed_and_shadows_stand_beside_each_prediction(worker: Worker) -> None:
    offsets = worker.announce(
        worker.version(1, "champion"),
        worker.version(2, "shadow"),
        worker.version(3, "canary", share=SHARE),
        worker.version(4, "candidate"),
    )
    worker.wait_until_obeyed()
    assert worker.verdicts(offsets[:3]) == [
        ("model.accepted", state, "accepted") for state in ("champion", "shadow", "canary")
    ]
    ids = _send(worker)
    answers, shadows = worker.answered(ids), worker.answered(ids, SHADOWS.name)
    router = Router(worker.journey.pipeline.model.name)
    places = {answer["event_id"]: answer["partition"] for answer in answers}
    for answer in answers:
        canary = router.canary(Strings.of([answer["key"].encode()]), SHARE)[0]
        assert (answer["role"], answer["model_version"]) == (("canary", 3) if canary else ("champion", 1))
        assert answer["registry_offset"] == offsets[2 if canary else 0]
        assert answer["shadows"] == 1
    assert {answer["role"] for answer in answers} == {"champion", "canary"}
    assert len(answers) == len(places) == len(shadows) == len({s["event_id"] for s in shadows}) == ROWS
    for shadow in shadows:
        assert (shadow["role"], shadow["model_version"], shadow["shadows"]) == ("shadow", 2, 0)
        assert shadow["partition"] == places[shadow["event_id"]]


def test_each_sampled_answer_is_explained_by_who_gave_it(worker: Worker) -> None:
    ids = _send(worker)
    answers = {answer["event_id"]: answer for answer in worker.answered(ids)}
    for told in worker.answered(ids, ATTRIBUTIONS.name):
        answer = answers.pop(told["event_id"])
        for name in ("role", "model_version", "registry_offset", "score", "feature_hash", "partition"):
            assert told[name] == answer[name]
        assert told["features"] == list(worker.journey.pipeline.feature_names)
        assert abs(told["gap"]) < 0.02
    assert not answers


def test_a_promotion_takes_effect_as_one(worker: Worker) -> None:
    _, offset = worker.announce(worker.version(1, "retired"), worker.version(3, "champion"))
    worker.wait_until_obeyed()
    answers = worker.answered(_send(worker))
    assert {(a["role"], a["model_version"], a["registry_offset"]) for a in answers} == {
        ("champion", 3, offset)
    }
    assert worker.verdicts([offset]) == [("model.accepted", "champion", "accepted")]


def test_an_aborted_announcement_never_serves_and_is_passed(worker: Worker) -> None:
    worker.announce(worker.version(5, "champion"), commit=False)
    worker.sequence -= 1
    worker.wait_until_obeyed()
    assert {a["model_version"] for a in worker.answered(_send(worker))} == {3}


def test_every_bad_record_of_one_batch_is_named_though_a_good_one_follows(worker: Worker) -> None:
    good = worker.version(8, "champion")
    forged = replace(worker.version(6, "champion"), version=7)
    offsets = worker.announce(
        good,
        forged,
        worker.version(6, "shadow", feature_fingerprint="0" * 64),
        worker.version(9, "champion"),
        worker.version(10, "shadow"),
    )
    worker.wait_until_obeyed()
    assert worker.verdicts(offsets) == [
        ("model.superseded", "champion", "superseded"),
        ("model.rejected", "champion", "signature.invalid"),
        ("model.rejected", "shadow", "features.mismatch"),
        ("model.accepted", "champion", "accepted"),
        ("model.accepted", "shadow", "accepted"),
    ]
    answers = worker.answered(ids := _send(worker))
    assert {(a["model_version"], a["shadows"]) for a in answers} == {(9, 2)}
    assert {s["model_version"] for s in worker.answered(ids, SHADOWS.name, each=2)} == {2, 10}


def test_a_rollback_puts_the_older_version_back_and_rejected_ones_go(worker: Worker) -> None:
    worker.announce(
        worker.version(9, "rolled_back"),
        worker.version(3, "champion", kind="rollback"),
        worker.version(2, "rejected"),
        worker.version(10, "rejected"),
    )
    worker.wait_until_obeyed()
    answers = worker.answered(_send(worker))
    assert {(a["role"], a["model_version"], a["shadows"]) for a in answers} == {("champion", 3, 0)}
    assert not any(worker.journey.supervisor.restarts().values())
