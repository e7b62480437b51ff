"""Follows models.v1 in a thread of its own: proves what is announced, then hands the line-up to the loop.

Loading, proving and warming up take seconds; the loop goes on with the models it has and takes new ones between
two batches. Every refusal and every acceptance is a record on audit.v1.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import KafkaError, Message, TopicPartition

from services.inference.core.lineup import ActiveModel, Failure, Lineup
from services.inference.core.registry import Action, Claim, Registry
from services.inference.core.scoring import Scorer
from services.inference.metrics import ModelMetrics
from shared.codec.batch import Batch, Floats
from shared.codec.frame import split_frames
from shared.errors import Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import open_reader
from shared.models.announcement import CHAMPION, SHADOW, Announcement, announcements
from shared.models.loading import LoadedModel
from shared.models.safety import ModelRefused
from shared.runtime.context import backoff
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.settings import KafkaSettings

ANNOUNCEMENT_BROKEN = "announcement.broken"
SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one record on models.v1, for the audit topic."""

    kind: str
    announcement: Announcement | None
    offset: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What the loop takes at a turn: a line-up where there is a new one, and how much of models.v1 is in effect.

    `offset` is the one behind the last record, markers included; -1 before the topic's end was first reached.
    """

    lineup: Lineup | None
    offset: int


@dataclass(slots=True)
class Follower:
    """The thread's state and its result, taken by the loop with `take`."""

    kafka: KafkaSettings
    table: Table
    registry: Registry
    prove: Callable[[Announcement, int], LoadedModel]
    """Fetch and load what was announced into so many bytes; ModelRefused when it must not serve, Retry when it
    is not there."""
    recent: Callable[[], Floats]
    """Vectors of late, to warm up on."""
    tell: Callable[[Verdict], None]
    metrics: ModelMetrics
    wait_s: float
    memory_bytes: int
    """What all models may ask for together, by their manifests."""
    positive: int = 1
    """Index of the class that a score of two classes is the probability of."""
    _ready: Lineup | None = None
    _obeyed: int = -1
    _failure: BaseException | None = None
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reports: "queue.SimpleQueue[Failure]" = field(default_factory=queue.SimpleQueue)
    _serving: dict[int, ActiveModel] = field(default_factory=dict)
    """The models of settled claims, by offset."""
    _gathered: list[Action] = field(default_factory=list)
    _accepted: list[Claim] = field(default_factory=list)
    _champion: ActiveModel | None = None
    _previous: ActiveModel | None = None

    def start(self) -> None:
        """Begin to follow."""
        threading.Thread(target=self._run, name="models", daemon=True).start()

    def take(self) -> Taken:
        """The newest line-up if there is one since the last call. Raises what the thread died of."""
        with self._lock:
            taken = Taken(self._ready, self._obeyed)
            self._ready = None
        if self._failure is not None:
            raise self._failure
        return taken

    def report(self, failure: Failure) -> None:
        """The loop has found a model unfit."""
        self._reports.put(failure)

    def _run(self) -> None:
        attempt = 0
        while True:
            try:
                for actions, end in self._actions():
                    self._obey(actions, end)
                    attempt = 0
            except Retry:
                attempt += 1
                time.sleep(backoff(attempt))
            except BaseException as failure:  # the loop must die of it, not this thread alone
                self._failure = failure
                return

    def _actions(self) -> Iterator[tuple[list[Action], int]]:
        """Batches of actions, each with the offset behind it; the first holds all that was there at the start."""
        reader = open_reader(self.kafka)
        try:
            reader.assign([TopicPartition(self.table.topic, 0, self._next)])
            while True:
                self._hear()
                messages = reader.consume(500, timeout=0.1)
                ends = [m.offset() or 0 for m in messages if self._is_end(m)]
                for polled in to_polled([m for m in messages if m.error() is None]):
                    self._gathered += self._fold(polled)
                    self._next = int(polled.offsets[-1]) + 1
                if ends:
                    gathered, self._gathered = self._gathered, []
                    yield gathered, max(ends[-1], self._next)
        finally:
            reader.close()

    def _is_end(self, message: Message) -> bool:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise Retry(f"{self.table.topic}: {error}")
        return error is not None

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

    def _obey(self, actions: list[Action], end: int) -> None:
        """Give every role to the newest claim that proves itself; older ones are not loaded for nothing."""
        for action in actions:
            if action.verb == "refuse" or action.incident:
                self._refused(action.announcement, action.offset, action.reason, action.detail)
        if any(action.verb in ("load", "drop") for action in actions):
            self._fill()
        self._tell_superseded()
        with self._lock:
            self._obeyed = end

    # Roles, and the memory they share.

    def _fill(self) -> None:
        """Settle all claims: the champion first, then the canary, then shadows from the newest on."""
        registry, room = self.registry, self.memory_bytes
        self._crown(self._first(registry.champions, room) or self._last_resort())
        sizes: dict[str, int] = {}
        if self._champion is not None:
            _fits(self._champion, sizes, room)
        spare = self._previous is None or _fits(self._previous, sizes, room)
        self._publish(spare)
        canary = self._first(registry.canaries, room - sum(sizes.values()), sizes)
        if canary is not None:
            _fits(canary, sizes, room)
        for claim in reversed(list(registry.shadows.values())):
            known = registry.shadows.get(claim.announcement.version) == claim
            shadow = self._try(claim, room - sum(sizes.values()), sizes) if known else None
            if shadow is not None:
                _fits(shadow, sizes, room)
        if not spare:
            self._previous = None
        self._publish(spare)

    def _last_resort(self) -> ActiveModel | None:
        """The champion that was retired last, where compaction has left no champion that can be loaded."""
        resort, self.registry.retired = self.registry.resort(), None
        return None if resort is None else self._try(resort, self.memory_bytes, {})

    def _crown(self, model: ActiveModel | None) -> None:
        old = self._champion
        if model is None or model is old:
            return
        self._champion = model
        if old is not None and old.digest != model.digest:
            self._previous = old

    def _first(
        self, claims: list[Claim], room: int, sizes: dict[str, int] | None = None
    ) -> ActiveModel | None:
        """The newest of the claims that proves itself, and settled is."""
        for claim in reversed(list(claims)):
            # While one is waited for, the loop may find fault with the next.
            model = self._try(claim, room, sizes or {}) if claim in claims else None
            if model is not None:
                return model
        return None

    def _try(self, claim: Claim, room: int, sizes: dict[str, int]) -> ActiveModel | None:
        """The model of a claim, loaded if it is not; None after a refusal. `sizes` are counted already."""
        said = claim.announcement
        model = self._serving.get(claim.offset)
        known = model or self._twin(said.digest)
        try:
            if known is None:
                scorer = Scorer(self._prove(said, room), self.positive)
                scorer.warm_up(self.recent())
            else:
                scorer = known.scorer
                if said.digest not in sizes and _size(known) > room:
                    raise ModelRefused("resources.memory", f"{_size(known)} bytes do not fit into {room}")
        except ModelRefused as refusal:
            self.registry.settle(claim, loaded=False)
            self._serving.pop(claim.offset, None)
            self._refused(said, claim.offset, refusal.reason, refusal.detail)
            return None
        if model is None:
            model = self._serving[claim.offset] = ActiveModel(said, claim.offset, scorer)
            self.registry.settle(claim, loaded=True)
            self._accepted.append(claim)
        return model

    def _twin(self, digest: str) -> ActiveModel | None:
        """A model of the same digest that is loaded already, whatever its role."""
        loaded = (*self._serving.values(), *(m for m in (self._champion, self._previous) if m))
        return next((m for m in loaded if m.digest == digest), None)

    def _publish(self, spare: bool) -> None:
        """Hand the loop the models of all claims that are settled."""
        claims = self.registry.claims()
        offsets = {claim.offset for claim in claims}
        self._serving = {at: model for at, model in self._serving.items() if at in offsets}
        canaries = [self._serving[c.offset] for c in self.registry.canaries if c.offset in self._serving]
        shadows = [self._serving.get(c.offset) for c in self.registry.shadows.values()]
        lineup = Lineup(
            self._champion,
            canaries[0] if canaries else None,
            tuple(shadow for shadow in shadows if shadow is not None),
            spare,
        )
        with self._lock:
            self._ready = lineup
        self.metrics.version.set(0 if lineup.champion is None else lineup.champion.announcement.version)
        accepted, self._accepted = self._accepted, []
        for claim in accepted:
            said = claim.announcement
            self.metrics.accepted.labels(said.state).inc()
            detail = f"proved itself and is {said.state}"
            self.tell(Verdict("model.accepted", said, claim.offset, "accepted", detail))

    def _prove(self, said: Announcement, room: int) -> LoadedModel:
        deadline = time.monotonic() + self.wait_s
        while True:
            try:
                return self.prove(said, room)
            except Retry as failure:
                if time.monotonic() > deadline:
                    raise ModelRefused("artefact.missing", str(failure)) from failure
                time.sleep(0.2)
                self._hear()

    # Verdicts.

    def _hear(self) -> None:
        """Take in what the loop has found of its models, and say it."""
        while not self._reports.empty():
            failure = self._reports.get()
            self.metrics.failed.labels(failure.role, failure.reason).inc()
            kind, outcome = self._taken_out(failure)
            said, detail = failure.failed.announcement, f"{failure.detail}; {outcome}"
            self.tell(Verdict(kind, said, failure.failed.registry_offset, failure.reason, detail))

    def _taken_out(self, failure: Failure) -> tuple[str, str]:
        """Give up the claim of a model that the loop has taken out; what to say of it."""
        failed, instead = failure.failed, failure.instead
        if failure.role == CHAMPION and instead is None:
            return "model.failing", "it goes on, for there is none before it"
        self.registry.withdraw(failed.claim, None if instead is None else instead.claim)
        self._serving.pop(failed.registry_offset, None)
        if instead is None:
            if failure.role == SHADOW:
                return "model.rejected", "it answers no more"
            return "model.rolled_back", "the champion answers its keys"
        if self._champion is not None and self._champion.registry_offset == failed.registry_offset:
            self._champion, self._previous = instead, None
            self._serving[instead.registry_offset] = instead
        elif self._previous is not None and self._previous.registry_offset == failed.registry_offset:
            self._previous = instead
        return "model.rolled_back", f"version {instead.announcement.version} serves"

    def _refused(self, said: Announcement | None, offset: int, reason: str, detail: str) -> None:
        self.metrics.refused.labels(reason).inc()
        self.tell(Verdict("model.rejected", said, offset, reason, detail))

    def _tell_superseded(self) -> None:
        for claim in self.registry.superseded:
            detail = "another record took its place before it was tried"
            self.tell(Verdict("model.superseded", claim.announcement, claim.offset, SUPERSEDED, detail))
        self.registry.superseded.clear()


def _size(model: ActiveModel) -> int:
    return model.scorer.model.manifest.budget.memory_bytes


def _fits(model: ActiveModel, sizes: dict[str, int], room: int) -> bool:
    """Count a model in, unless it is counted already or there is no room for it."""
    digest = model.digest
    if digest not in sizes and sum(sizes.values()) + _size(model) > room:
        return False
    sizes[digest] = _size(model)
    return True


def _one(batch: Batch, row: int) -> Announcement:
    return announcements(batch.take(np.array([row])))[0]
