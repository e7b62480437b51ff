"""One run of the fraud pipeline over a script of payments, undisturbed or not, and what it left behind."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from schemas import platform_schema
from services.cli.benching import Gauge, wait_ready
from services.cli.checking import Floats, Once, exactly_once, matrix_of, texts
from services.cli.journey import FULL_SPEED, Journey
from services.cli.replaying import Pace
from services.cli.script import write_script
from services.cli.untrained import announce_untrained
from services.cli.variants import write_variant
from services.features.core.digest import vectors_digest
from services.stack import embedded
from services.stack.supervisor import RestartPolicy
from shared.contracts.generated import accepted_schema, features_schema, stage_schema
from shared.contracts.pipeline import find_pipeline
from shared.errors import Fatal
from shared.kafka.reader import bounds, open_reader, read_topic
from shared.runtime.snapshots import SnapshotStore
from shared.settings import home
from shared.topics import ACCEPTED, EVENTS, FEATURES, LABELS, stage_topic

FOREVER = 2**62
WEEK_MS = 7 * 86_400_000
# Long enough for every source to be called idle after its last record, which the final states hold.
SETTLE_S = 5.0
# A service that starts on a busy machine writes later than this at most; one with nothing left to do never.
SPARE_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes."""

    partitions: int = 4
    workers: int = 1
    pace: Pace = FULL_SPEED
    order: str = "event"
    kills: Mapping[str, int] = field(default_factory=dict)
    """SIGKILLs by service, at random moments."""
    aimed: bool = False
    """Kill each service in the order of `kills` when it has just written, before it can have committed what it
    read for that."""
    sips: int | None = None
    """Records a poll at most: with few the work outlasts the kills, however fast the machine."""
    broker_kills: int = 0
    transactional: bool = True
    inference: bool = False
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left on the topics and in its states."""

    digest: str
    vectors: Once
    predictions: Once | None
    states: Mapping[str, str]
    killed: int
    repeated: int
    """Records that the replay wrote twice: a broker that dies forgets the sequence numbers of old times."""
    ids: list[str]
    names: list[str]
    matrix: Floats


class Stalled(AssertionError):
    """Something is missing: outputs that were to come have not."""


def rehearse(frame: pl.DataFrame, name: str, plan: Plan) -> Outcome:
    """Replay `frame` through a fraud variant called `name` as `plan` says."""
    folder = write_variant(find_pipeline("fraud"), home() / "declared", name, plan.partitions, plan.order)
    only = ["ingest", "features"] + (["inference"] if plan.inference else [])
    services = dict.fromkeys(only, plan.workers)
    journey = Journey(folder, services, _environment(plan), only, RestartPolicy(allowed=200))
    script = write_script(frame, journey.pipeline, WEEK_MS)
    sent = texts(script.events[journey.pipeline.event.id].strings)
    if plan.inference:
        announce_untrained(journey)
    with (
        journey.replaying(script, plan.pace) as replay_ended,
        journey,
        disturbing(journey, plan) as disturbance,
    ):
        disturbance.wait()
        replay_ended()
        try:
            journey.wait_for(journey.topic("features.v1"), len(sent), stall_s=60.0)
            if plan.inference:
                journey.wait_for(journey.topic("predictions.v1"), len(sent), stall_s=60.0)
        except Fatal as stall:
            raise Stalled(f"{stall}\n{whereabouts(journey, sent)}") from stall
        # Who was killed last may still be starting: it, too, has to say that it is idle.
        wait_ready(journey)
        journey.rest(SETTLE_S)
    return _outcome(journey, plan, sent, disturbance.killed, _written(journey) - len(script))


def whereabouts(journey: Journey, sent: list[str]) -> str:
    """How far each id came, the dead letters, and where each unit says it stands: for when something stalls."""
    pipeline = journey.pipeline
    lines = [f"committed: {journey.committed()}"]
    for stage in range(len(pipeline.entities)):
        topic = ACCEPTED if stage == 0 else stage_topic(pipeline.entities[stage].name)
        schema = accepted_schema(pipeline) if stage == 0 else stage_schema(pipeline, stage - 1)
        columns = [
            "event",
            f"event.{pipeline.event.id}",
            "progress",
            "progress.idle",
            "unit",
            "order_time",
            "late",
        ]
        rows = journey.rows(topic.of(pipeline.name), schema, [*columns, "input_partition", "input_offset"])
        events = rows.take(rows["event"].array)
        found = texts(events[f"event.{pipeline.event.id}"].strings)
        lines.append(f"{topic.name}: {exactly_once(sent, found)}; late {int(events['late'].array.sum())}")
        words = rows.take(rows["progress"].array)
        last = {}
        for at in range(words.rows):
            place = (int(words["input_partition"].array[at]), int(words["unit"].array[at]))
            last[place] = (int(words["order_time"].array[at]), bool(words["progress.idle"].array[at]))
        lines.append(f"  last word by (partition, unit): {last}")
    dead = read_topic(journey.platform.kafka, journey.topic("dlq.v1"))
    lines.append(f"dead letters: {sum(len(part) for part in dead)}")
    return "\n".join(lines)


def _environment(plan: Plan) -> dict[str, str]:
    flag = "true" if plan.transactional else "false"
    services = ("INGEST", "FEATURES", "INFERENCE")
    environment = {f"MILLRACE_{s}__RUNTIME__TRANSACTIONAL": flag for s in services}
    if plan.sips is not None:
        environment |= {f"MILLRACE_{s}__RUNTIME__MAX_RECORDS": str(plan.sips) for s in services}
    # Often, so that runs of seconds recover from snapshots and not from the beginning.
    return environment | {f"MILLRACE_{s}__RUNTIME__SNAPSHOT_INTERVAL_S": "1" for s in services}


def _written(journey: Journey) -> int:
    """How many records lie on the topics that ingest reads."""
    return sum(Gauge(journey, journey.topic(topic.name)).end for topic in (EVENTS, LABELS))


def _outcome(journey: Journey, plan: Plan, sent: list[str], killed: int, repeated: int) -> Outcome:
    names = list(journey.pipeline.feature_names)
    columns = ["event_id", *(f"features.{name}" for name in names)]
    rows = journey.rows(journey.topic("features.v1"), features_schema(journey.pipeline), columns)
    ids, matrix = texts(rows["event_id"].strings), matrix_of(rows, names)
    answered = None
    if plan.inference:
        found = journey.rows(journey.topic("predictions.v1"), platform_schema("prediction"), ["event_id"])
        answered = exactly_once(sent, texts(found["event_id"].strings))
    return Outcome(
        digest=vectors_digest(rows["event_id"].strings, matrix),
        vectors=exactly_once(sent, ids),
        predictions=answered,
        states=states(journey),
        killed=killed,
        repeated=repeated,
        ids=ids,
        names=names,
        matrix=matrix,
    )


def states(journey: Journey) -> dict[str, str]:
    """The digest of every unit's last saved state, by stage and unit."""
    stages = ["ingest", *(f"features-{entity.name}" for entity in journey.pipeline.entities)]
    found = {}
    for stage in stages:
        store = SnapshotStore(journey.platform.snapshots_url, journey.pipeline.name, stage)
        for unit in range(journey.pipeline.partitions):
            snapshot = store.newest(unit, _Everything())
            found[f"{stage}/{unit}"] = "" if snapshot is None else snapshot.digest
    return found


class _Everything(dict[str, int]):
    """Offsets by which every snapshot is old enough."""

    def get(self, _topic: str, _default: int = 0) -> int:  # type: ignore[override]
        return FOREVER


class Watchman:
    """Sees a service write, at once."""

    def __init__(self, journey: Journey) -> None:
        name, entities = journey.pipeline.name, [entity.name for entity in journey.pipeline.entities]
        # What no transaction has committed yet counts.
        self._reader = open_reader(journey.platform.kafka, **{"isolation.level": "read_uncommitted"})
        # Each stage writes what the next one is named for.
        writers = ["ingest", *(f"features-{entity}" for entity in entities)]
        topics = [ACCEPTED, *map(stage_topic, entities[1:]), FEATURES]
        self._outputs = {writer: topic.of(name) for writer, topic in zip(writers, topics, strict=True)}

    def sees_writing(self, service: str, limit_s: float) -> bool:
        """Return as soon as `service` has written to its first partition; False if it did not in time."""
        topic, deadline = self._outputs[service], time.monotonic() + limit_s
        before = bounds(self._reader, topic, 0)[1]
        while bounds(self._reader, topic, 0)[1] == before:
            if time.monotonic() > deadline:
                return False
        return True

    def close(self) -> None:
        """Let go of the client."""
        self._reader.close()


class disturbing:  # noqa: N801 - reads as a word in a with statement
    """Kills what the plan says, one after another; `wait` returns when all is done.

    At random moments, or where the plan aims when the service has just written; who writes no more is spared.
    """

    def __init__(self, journey: Journey, plan: Plan) -> None:
        self._journey, self._random = journey, random.Random(plan.seed)
        blow = self._aimed if plan.aimed else self._blow
        blows: list[Callable[[], bool]] = [
            blow(service) for service, count in plan.kills.items() for _ in range(count)
        ]
        if not plan.aimed:
            # Else as listed, the first stage first: it is through before the others are.
            self._random.shuffle(blows)
        for at in range(plan.broker_kills):
            blows.insert((at + 1) * len(blows) // (plan.broker_kills + 1), self._broker)
        self._blows = blows
        self._workers = plan.workers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)
        self._failure: BaseException | None = None
        self.killed = 0

    def __enter__(self) -> "disturbing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self) -> None:
        """Until the last blow has fallen."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            for blow in self._blows:
                if self._stop.wait(self._random.uniform(0.5, 2.5)):
                    return
                while not blow():
                    if self._stop.wait(0.05):
                        return
                self.killed += 1
        except BaseException as failure:  # shown by `wait`
            self._failure = failure

    def _blow(self, service: str) -> Callable[[], bool]:
        return lambda: self._journey.supervisor.kill(service, self._random.randrange(self._workers))

    def _aimed(self, service: str) -> Callable[[], bool]:
        def strike() -> bool:
            watchman = Watchman(self._journey)
            try:
                if watchman.sees_writing(service, SPARE_S):
                    return self._journey.supervisor.kill(service)
            finally:
                watchman.close()
            self._stop.set()
            return False

        return strike

    def _broker(self) -> bool:
        embedded.kill_broker(home())
        time.sleep(self._random.uniform(0.0, 0.5))
        embedded.restart_broker(home())
        return True
