"""Claims to roles become a line-up: each is tried once, within one memory, and every verdict is told.

Runs beside the loop: loading, proving and warming up take seconds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.inference.core.lineup import ActiveModel, Failure, Lineup
from services.inference.core.registry import Action, Claim, Registry
from services.inference.core.scoring import Scorer
from services.inference.metrics import ModelMetrics
from shared.codec.batch import Floats
from shared.errors import Retry
from shared.models.announcement import CHAMPION, SHADOW, Announcement
from shared.models.loading import LoadedModel
from shared.models.safety import ModelRefused

SUPERSEDED = "superseded"
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one record on models.v1, for the audit topic."""

    kind: str
    announcement: Announcement | None
    offset: int
    reason: str
    detail: str


@dataclass(slots=True)
class Memory:
    """Bytes by digest, as the manifests ask for them: a digest counts once, whatever its roles."""

    limit: int
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """What is left."""
        return self.limit - sum(self.sizes.values())

    def fits(self, model: ActiveModel) -> bool:
        """Whether the model is counted already or there is room for it."""
        return model.digest in self.sizes or _size(model) <= self.room

    def count(self, model: ActiveModel) -> None:
        """Count a model that fits."""
        self.sizes[model.digest] = _size(model)


def _size(model: ActiveModel) -> int:
    return model.scorer.model.manifest.budget.memory_bytes


@dataclass(slots=True)
class Roles:
    """The claims of `registry` made good: who answers as what, and what is said of it."""

    registry: Registry
    prove: Callable[[Announcement, int], LoadedModel]
    """Fetch and load what was announced into so many bytes; ModelRefused when it must not serve, Retry when it
    is not there."""
    recent: Callable[[], Floats]
    """Vectors of late, to warm up on."""
    tell: Callable[[Verdict], None]
    publish: Callable[[Lineup], None]
    """Hand a line-up to the loop."""
    metrics: ModelMetrics
    wait_s: float
    """Seconds that an artefact may take to appear in the store."""
    memory_bytes: int
    """What all models may ask for together."""
    positive: int = 1
    """Index of the class that a score of two classes is the probability of."""
    waiting: Callable[[], None] = lambda: None
    """Called while an artefact is waited for."""
    champion: ActiveModel | None = None
    previous: ActiveModel | None = None
    """The champion before, as long as the loop may go back to it."""
    _serving: dict[int, ActiveModel] = field(default_factory=dict)
    """The models of settled claims, by offset."""
    _accepted: list[Claim] = field(default_factory=list)

    def obey(self, actions: Sequence[Action]) -> None:
        """Give every role to the newest claim that proves itself; older ones are not loaded for nothing."""
        for action in actions:
            if action.verb == "refuse" or action.incident:
                self._refused(action.announcement, action.offset, action.reason, action.detail)
        if any(action.verb in ("load", "drop") for action in actions):
            self._fill()
        for claim in self.registry.superseded:
            detail = "another record took its place before it was tried"
            self.tell(Verdict("model.superseded", claim.announcement, claim.offset, SUPERSEDED, detail))
        self.registry.superseded.clear()

    def take_out(self, failure: Failure) -> None:
        """Give up the claim of a model that the loop has found unfit, and say so."""
        self.metrics.failed.labels(failure.role, failure.reason).inc()
        kind, outcome = self._taken_out(failure)
        said, detail = failure.failed.announcement, f"{failure.detail}; {outcome}"
        self.tell(Verdict(kind, said, failure.failed.registry_offset, failure.reason, detail))

    # Claims to models.

    def _fill(self) -> None:
        """Settle all claims: the champion first, then the canary, then shadows from the newest on."""
        memory = Memory(self.memory_bytes)
        before = self.champion
        self._crown(self._first(self.registry.champions, memory) or self._last_resort(memory))
        spare = True
        if self.champion is not None:
            memory.count(self.champion)
        if self.previous is not None:
            spare = memory.fits(self.previous)
            if spare:
                memory.count(self.previous)
        if self.champion is not before:
            self._hand_over(spare)  # others may take their time
        self._first(self.registry.canaries, memory)
        for claim in reversed(list(self.registry.shadows.values())):
            if self.registry.shadows.get(claim.announcement.version) == claim:
                self._try(claim, memory)
        if not spare:
            self.previous = None
        offsets = {claim.offset for claim in self.registry.claims()}
        self._serving = {at: model for at, model in self._serving.items() if at in offsets}
        self._hand_over(spare)

    def _first(self, claims: list[Claim], memory: Memory) -> ActiveModel | None:
        """The newest of the claims that proves itself; counted in."""
        for claim in reversed(list(claims)):
            # While one is waited for, the loop may find fault with the next.
            model = self._try(claim, memory) if claim in claims else None
            if model is not None:
                return model
        return None

    def _last_resort(self, memory: Memory) -> ActiveModel | None:
        """The champion that was retired last, where compaction has left no champion that can be loaded."""
        resort, self.registry.retired = self.registry.resort(), None
        return None if resort is None else self._try(resort, memory)

    def _try(self, claim: Claim, memory: Memory) -> ActiveModel | None:
        """The model of a claim, loaded if it is not, and counted in; None after a refusal."""
        said, model = claim.announcement, self._serving.get(claim.offset)
        known = model or self._twin(said.digest)
        try:
            if known is not None and not memory.fits(known):
                detail = f"asks for {_size(known)} bytes, {memory.room} are left beside the others"
                raise ModelRefused("resources.memory", detail)
            scorer = self._loaded(said, memory.room) if known is None else known.scorer
        except ModelRefused as refusal:
            self.registry.settle(claim, loaded=False)
            self._serving.pop(claim.offset, None)
            self._refused(said, claim.offset, refusal.reason, refusal.detail)
            return None
        if model is None:
            model = self._serving[claim.offset] = ActiveModel(said, claim.offset, scorer)
            self.registry.settle(claim, loaded=True)
            self._accepted.append(claim)
        memory.count(model)
        return model

    def _loaded(self, said: Announcement, room: int) -> Scorer:
        deadline = time.monotonic() + self.wait_s
        while True:
            try:
                scorer = Scorer(self.prove(said, room), self.positive)
            except Retry as failure:
                if time.monotonic() > deadline:
                    raise ModelRefused("artefact.missing", str(failure)) from failure
                time.sleep(RETRY_S)
                self.waiting()
            else:
                scorer.warm_up(self.recent())
                return scorer

    def _twin(self, digest: str) -> ActiveModel | None:
        """A model of the same digest that is loaded already, whatever its role."""
        loaded = (*self._serving.values(), *(m for m in (self.champion, self.previous) if m))
        return next((m for m in loaded if m.digest == digest), None)

    # Models to the line-up.

    def _crown(self, model: ActiveModel | None) -> None:
        old = self.champion
        if model is None or model is old:
            return
        self.champion = model
        if old is not None and old.digest != model.digest:
            self.previous = old

    def _hand_over(self, spare: bool) -> None:
        """Hand the loop the models of all claims that are settled, then say which are new."""
        registry = self.registry
        canaries = [self._serving[c.offset] for c in registry.canaries if c.offset in self._serving]
        shadows = [self._serving[c.offset] for c in registry.shadows.values() if c.offset in self._serving]
        self.publish(Lineup(self.champion, canaries[0] if canaries else None, tuple(shadows), spare))
        self.metrics.version.set(0 if self.champion is None else self.champion.announcement.version)
        accepted, self._accepted = self._accepted, []
        for claim in accepted:
            said = claim.announcement
            self.metrics.accepted.labels(said.state).inc()
            detail = f"proved itself and is {said.state}"
            self.tell(Verdict("model.accepted", said, claim.offset, "accepted", detail))

    def _taken_out(self, failure: Failure) -> tuple[str, str]:
        failed, instead = failure.failed, failure.instead
        if failure.role == CHAMPION and instead is None:
            return "model.failing", "it goes on, for there is none before it"
        self.registry.withdraw(failed.claim, None if instead is None else instead.claim)
        self._serving.pop(failed.registry_offset, None)
        if instead is None:
            if failure.role == SHADOW:
                return "model.rejected", "it answers no more"
            return "model.rolled_back", "the champion answers its keys"
        if self.champion is not None and self.champion.registry_offset == failed.registry_offset:
            self.champion, self.previous = instead, None
            self._serving[instead.registry_offset] = instead
        elif self.previous is not None and self.previous.registry_offset == failed.registry_offset:
            self.previous = instead
        return "model.rolled_back", f"version {instead.announcement.version} serves"

    def _refused(self, said: Announcement | None, offset: int, reason: str, detail: str) -> None:
        self.metrics.refused.labels(reason).inc()
        self.tell(Verdict("model.rejected", said, offset, reason, detail))
