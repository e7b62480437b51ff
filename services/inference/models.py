"""Follows models.v1 in a thread of its own: proves what is announced, then hands it to the loop.

Loading, proving and warming up take seconds; the loop goes on with the model it has and takes the new one
between two batches. Every refusal and every acceptance is a record on audit.v1.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import KafkaError, TopicPartition

from services.inference.core.fold import ActiveModel
from services.inference.core.registry import Action, Registry
from services.inference.core.scoring import Scorer
from services.inference.metrics import ModelMetrics
from shared.codec.batch import Batch, Floats
from shared.codec.frame import split_frames
from shared.errors import Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import open_reader
from shared.models.announcement import Announcement, announcements
from shared.models.loading import LoadedModel
from shared.models.safety import ModelRefused
from shared.runtime.context import backoff
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.settings import KafkaSettings

ANNOUNCEMENT_BROKEN = "announcement.broken"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one record on models.v1, for the audit topic."""

    kind: str
    announcement: Announcement | None
    offset: int
    reason: str
    detail: str


@dataclass(slots=True)
class Follower:
    """The thread's state and its one result, taken by the loop with `take`."""

    kafka: KafkaSettings
    table: Table
    registry: Registry
    prove: Callable[[Announcement], LoadedModel]
    """Fetch and load what was announced; ModelRefused when it must not serve, Retry when it is not there."""
    recent: Callable[[], Floats]
    """Vectors of late, to warm up on."""
    tell: Callable[[Verdict], None]
    metrics: ModelMetrics
    wait_s: float
    _ready: ActiveModel | None = None
    _failure: BaseException | None = None
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Begin to follow."""
        threading.Thread(target=self._run, name="models", daemon=True).start()

    def take(self) -> ActiveModel | None:
        """The model that became ready since the last call. Raises what the thread died of."""
        with self._lock:
            ready, self._ready = self._ready, None
        if self._failure is not None:
            raise self._failure
        return ready

    def _run(self) -> None:
        attempt = 0
        while True:
            try:
                for actions in self._actions():
                    self._obey(actions)
                    attempt = 0
            except Retry:
                attempt += 1
                time.sleep(backoff(attempt))
            except BaseException as failure:  # the loop must die of it, not this thread alone
                self._failure = failure
                return

    def _actions(self) -> Iterator[list[Action]]:
        """Batches of actions; the first holds all that was there at the start."""
        reader = open_reader(self.kafka)
        try:
            reader.assign([TopicPartition(self.table.topic, 0, self._next)])
            gathered: list[Action] = []
            while True:
                messages = reader.consume(500, timeout=0.1)
                ended = [m for m in messages if m.error() is not None]
                for message in ended:
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise Retry(f"{self.table.topic}: {error}")
                for polled in to_polled([m for m in messages if m.error() is None]):
                    gathered += self._fold(polled)
                    self._next = int(polled.offsets[-1]) + 1
                if ended:
                    yield gathered
                    gathered = []
        finally:
            reader.close()

    def _fold(self, polled: Polled) -> list[Action]:
        ids, payload, status = split_frames(polled.values)
        decoded = self.table.program.decode(payload)
        wrong = (status != 0) | (ids != self.table.schema_id) | (decoded.status != 0)
        actions = []
        for row in range(len(polled)):
            offset, timestamp = int(polled.offsets[row]), int(polled.timestamps[row])
            if polled.value_null[row]:
                actions.append(self.registry.step(None, offset, timestamp))
            elif wrong[row]:
                text = f"not a record of schema {self.table.schema_id}; the last good model stays"
                actions.append(Action("ignore", offset, None, ANNOUNCEMENT_BROKEN, text, incident=True))
            else:
                said = _one(decoded.batch, row)
                actions.append(self.registry.step(said, offset, timestamp))
        return actions

    def _obey(self, actions: list[Action]) -> None:
        """The newest that proves itself wins; older ones are not loaded for nothing."""
        loads = [action for action in actions if action.verb == "load"]
        for action in actions:
            if action.verb == "refuse" or action.incident:
                self._refused(action, action.reason, action.detail)
        while loads:
            if self._load(loads.pop()):
                return

    def _load(self, action: Action) -> bool:
        said = action.announcement
        if said is None:
            return False
        try:
            scorer = Scorer(self._prove(said))
            scorer.warm_up(self.recent())
        except ModelRefused as refusal:
            self.registry.settle(said, loaded=False)
            self._refused(action, refusal.reason, refusal.detail)
            return False
        self.registry.settle(said, loaded=True)
        with self._lock:
            self._ready = ActiveModel(said, action.offset, scorer)
        self.metrics.accepted.inc()
        self.metrics.version.set(said.version)
        self.tell(Verdict("model.accepted", said, action.offset, "accepted", "proved itself and serves"))
        return True

    def _prove(self, said: Announcement) -> LoadedModel:
        deadline = time.monotonic() + self.wait_s
        while True:
            try:
                return self.prove(said)
            except Retry as failure:
                if time.monotonic() > deadline:
                    raise ModelRefused("artefact.missing", str(failure)) from failure
                time.sleep(0.2)

    def _refused(self, action: Action, reason: str, detail: str) -> None:
        self.metrics.refused.labels(reason).inc()
        self.tell(Verdict("model.rejected", action.announcement, action.offset, reason, detail))


def _one(batch: Batch, row: int) -> Announcement:
    return announcements(batch.take(np.array([row])))[0]
