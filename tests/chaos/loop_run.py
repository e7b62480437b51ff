"""One run of a loop over a stream that changes, undisturbed or with kills at chosen stages of its retrainings."""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaError, TopicPartition

from services.cli.changing import Change, applications
from services.cli.chronicle import read_chronicle
from services.cli.from_csv import Wish, files_from
from services.cli.journey import Journey
from services.cli.lockstep import Lockstep
from services.cli.replaying import Pace
from services.cli.script import Script, labels_after_ms, read_rows, write_script
from services.cli.story import Story
from services.retrainer.core.segments import unseal
from services.retrainer.datasets import rebuild
from services.retrainer.kept import kept_of
from services.retrainer.ledger import KafkaLedger
from services.stack.supervisor import RestartPolicy
from shared.codec.batch import Batch
from shared.contracts.generated import LABEL_KINDS, labeled_schema
from shared.control.records import Record, Records
from shared.errors import Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import open_reader, read_topic
from shared.topics import AUDIT, COMMANDS, DRIFT, LABELED, MODELS, RUNS, Topic
from tests.chaos.loop_laws import Left, Row

SERVICES = ("feedback", "drift", "retrainer", "controller")
STAGES = (
    "alarm",
    "trigger",
    "dataset",
    "statistics",
    "train.started",
    "train",
    "evaluate",
    "package",
    "propose",
    "done",
    "validated",
    "shadow",
    "canary",
    "champion",
)
"""Records after which something is killed: alarms, those of runs.v1 by step, of audit.v1 by a version's state."""
LONGEST_S = 1.0
RETRAIN = """[policy.retrain]
min_rows = 150
every_labels = 250
"""
TRIALS = """
[policy.promotion]
shadow_labels = 20
canary_share = 0.5
canary_labels = 10
"""
CHANGE = Change(events=1_000, at=500)
STEP = 125
RATE = 15.0
PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Blow:
    """A kill: of which service, after which stage, how many seconds later."""

    service: str
    stage: str
    delay_s: float


def blows(seed: int, turns: int = 2) -> list[Blow]:
    """`turns` kills a stage, of another service each; two even seeds, or two odd ones, hit each at each stage."""
    chance = random.Random(seed)
    found = []
    for turn in range(turns):
        for at, stage in enumerate(STAGES):
            service = SERVICES[(at + turn + 2 * (seed // 2)) % len(SERVICES)]
            name = chance.choice(("feedback-join", "feedback-score")) if service == "feedback" else service
            found.append(Blow(name, stage, chance.choice((0.0, chance.uniform(0.0, LONGEST_S)))))
    return found


@dataclass(slots=True)
class Told:
    """What a run came to."""

    left: Left
    story: Story
    killed: list[Blow] = field(default_factory=list)
    missed: list[Blow] = field(default_factory=list)
    seconds: float = 0.0


def run(folder: Path, name: str, planned: Sequence[Blow] = (), *, lockstep: bool = True) -> Told:
    """Declare the changing stream under `name`, send it, and read what is left once all have come to rest.

    In lockstep what passes the gate is promoted at once, else it is a shadow and a canary before.
    """
    began = time.monotonic()
    declare(folder, name, RETRAIN if lockstep else RETRAIN + TRIALS)
    journey = Journey(
        folder / name, environment=_environment(), policy=RestartPolicy(0.1, 1.0, 200), services="loop"
    )
    declared = journey.pipeline
    script = write_script(read_rows(folder / "stream.csv", declared), declared, labels_after_ms(declared))
    with journey, _disturbing(journey, planned) as storm:
        if lockstep:
            journey.replay_in_steps(script, STEP, PATIENCE_S)
        else:
            _replay(journey, script)
        storm.end()
    story = read_chronicle(journey.platform, declared, journey.schema_ids).story()
    return Told(left_by(journey), story, storm.killed, storm.missed, time.monotonic() - began)


def declare(folder: Path, name: str, policy: str) -> None:
    """Write the stream as a file, and its declaration as `millrace init --from` makes it, but for the policy."""
    file = folder / "stream.csv"
    if not file.exists():
        applications(CHANGE).drop("customer", "second").write_csv(file)
    (folder / name).mkdir()
    for each, text in files_from(Wish(name, file, "repaid")).items():
        (folder / name / each).write_text(text.replace("[policy.retrain]", policy))


def _environment() -> dict[str, str]:
    """States saved often, so that runs of a minute recover from them; waits for a service that was just killed."""
    data = {f"MILLRACE_{each}__RUNTIME__SNAPSHOT_INTERVAL_S": "1" for each in ("FEEDBACK", "CONTROLLER")}
    return {
        **os.environ,
        **data,
        "MILLRACE_DRIFT__SNAPSHOT_ROWS": "100",
        "MILLRACE_RETRAINER__DRIFT_WAIT_S": str(PATIENCE_S),
    }


def _replay(journey: Journey, script: Script) -> None:
    """Send it at a pace, and wait until nobody has anything to read; what is down is behind until it is back."""
    services = list(dict.fromkeys(worker.service for worker in journey._planned()))
    kafka, ids = journey.platform.kafka, journey.schema_ids
    with Lockstep.of(kafka, journey.pipeline, ids, script, STEP, services, PATIENCE_S, PATIENCE_S) as steps:
        journey.replay(script, Pace(rate=RATE))
        steps.rest_over(journey.supervisor.check)


class _Storm:
    """Follows drift.v1, runs.v1 and audit.v1 and strikes when a stage comes for which a blow is planned."""

    def __init__(self, journey: Journey, planned: Sequence[Blow]) -> None:
        self._journey = journey
        self._planned = {stage: deque(b for b in planned if b.stage == stage) for stage in STAGES}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="storm", daemon=True)
        self._failure: BaseException | None = None
        self.killed: list[Blow] = []
        if planned:
            self._thread.start()

    @property
    def missed(self) -> list[Blow]:
        """What was planned for stages that did not come often enough."""
        return [blow for each in self._planned.values() for blow in each]

    def end(self) -> None:
        """Strike no more; raise what went wrong here."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _follow(self) -> None:
        try:
            for stage in self._stages():
                if self._planned.get(stage):
                    self._strike(self._planned[stage].popleft())
        except BaseException as failure:  # shown by `end`
            self._failure = failure

    def _strike(self, blow: Blow) -> None:
        self._ended.wait(blow.delay_s)
        while not self._journey.supervisor.kill(blow.service):
            if self._ended.wait(0.02):
                return
        self.killed.append(blow)

    def _stages(self) -> Iterator[str]:
        journey = self._journey
        names = {
            records.topic: records
            for records in (
                Records.of(t, journey.pipeline.name, journey.schema_ids) for t in (DRIFT, RUNS, AUDIT)
            )
        }
        reader = open_reader(journey.platform.kafka, **{"fetch.wait.max.ms": 20})
        reader.assign([TopicPartition(topic, 0, 0) for topic in names])
        try:
            while not self._ended.is_set():
                messages = reader.consume(500, timeout=0.05)
                errors = [e for m in messages if (e := m.error()) is not None]
                if any(e.code() != KafkaError._PARTITION_EOF for e in errors):
                    raise Retry(str(errors))
                for polled in to_polled([m for m in messages if m.error() is None]):
                    for record in names[polled.topic].read(polled):
                        yield stage_of(record)
        finally:
            reader.close()


def stage_of(record: Record) -> str:
    """The stage that a record of drift.v1, runs.v1 or audit.v1 ends."""
    if "family" in record:
        return "alarm"
    if "step" not in record:
        return str(record["state"])
    return f"{record['step']}.started" if record["state"] == "started" != record["step"] else record["step"]


@contextmanager
def _disturbing(journey: Journey, planned: Sequence[Blow]) -> Iterator[_Storm]:
    storm = _Storm(journey, planned)
    try:
        yield storm
    finally:
        storm._ended.set()


def left_by(journey: Journey) -> Left:
    """Everything that the laws speak of, from the topics and from the store of datasets."""
    pipeline, kafka = journey.pipeline, journey.platform.kafka
    kept = kept_of(journey.platform.artefacts_url, pipeline.name)
    ledger = KafkaLedger.of(kafka, pipeline, journey.schema_ids)
    manifests = {name: kept.manifest(name) for name in kept.datasets()}
    datasets = {
        name: [
            Row(*each)
            for entry in manifest.segments
            for each in zip(
                *(
                    unseal(kept.get("segments", entry.sha256))[column].to_pylist()
                    for column in ("sequence", "event_id", "role", "kind")
                ),
                strict=True,
            )
        ]
        for name, manifest in manifests.items()
    }
    return Left(
        runs=[record for _, record in _records(journey, RUNS)],
        commands=_records(journey, COMMANDS),
        audit=[record for _, record in _records(journey, AUDIT)],
        models=_records(journey, MODELS),
        ledger=_ledger(journey),
        datasets=datasets,
        differences={name: rebuild(manifest, ledger, kept) for name, manifest in manifests.items()},
    )


def _records(journey: Journey, topic: Topic) -> list[tuple[int, Record]]:
    records = Records.of(topic, journey.pipeline.name, journey.schema_ids)
    return [
        (int(offset), record)
        for polled in read_topic(journey.platform.kafka, records.topic)
        for offset, record in zip(polled.offsets, records.read(polled), strict=True)
    ]


def _ledger(journey: Journey) -> list[Row]:
    topic = LABELED.of(journey.pipeline.name)
    columns = ("sequence", "event_id", "role", "kind", "label_class", "model_version")
    schema = labeled_schema(journey.pipeline)
    rows = journey.rows(topic, schema, columns)
    return [
        Row(sequence, event.decode(), role.decode(), LABEL_KINDS[kind], label, version)
        for sequence, event, role, kind, label, version in zip(
            *(_values(rows, name) for name in columns), strict=True
        )
    ]


def _values(rows: Batch, name: str) -> list[object]:
    column = rows[name]
    return list(column.strings.to_list() if name in ("event_id", "role") else column.array.tolist())
