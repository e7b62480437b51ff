"""The models that answer, by role; what a model has spoiled of late."""

from dataclasses import dataclass, field

from services.inference.core.registry import Claim
from services.inference.core.scoring import FEATURES_NONFINITE, MODEL_NONFINITE, Scored, Scorer
from shared.models.announcement import Announcement

# A model that spoils more than 0.1 % of a window of this many rows is taken out.
HEALTH_ROWS = 10_000
HEALTH_BAD = 10


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A model that may answer, and the announcement at `registry_offset` that says so."""

    announcement: Announcement
    registry_offset: int
    scorer: Scorer

    @property
    def digest(self) -> str:
        """The artefact's address."""
        return self.announcement.digest

    @property
    def claim(self) -> Claim:
        """The announcement at its offset."""
        return Claim(self.announcement, self.registry_offset)


@dataclass(frozen=True, slots=True)
class Lineup:
    """All models that answer at one moment. `spare` tells whether the champion before may stay in memory."""

    champion: ActiveModel | None = None
    canary: ActiveModel | None = None
    shadows: tuple[ActiveModel, ...] = ()
    spare: bool = True

    @property
    def models(self) -> tuple[ActiveModel, ...]:
        """Everyone, champion first."""
        return tuple(m for m in (self.champion, self.canary, *self.shadows) if m is not None)

    def without(self, offsets: set[int]) -> "Lineup":
        """The same without the models announced at `offsets`."""
        champion, canary = (
            None if m is None or m.registry_offset in offsets else m for m in (self.champion, self.canary)
        )
        shadows = tuple(m for m in self.shadows if m.registry_offset not in offsets)
        return Lineup(champion, canary, shadows, self.spare)


@dataclass(frozen=True, slots=True)
class Failure:
    """A model was taken out of `role`, or would have been had a champion a model before it.

    `instead` is the champion that answers again; None for other roles, or where there is none.
    """

    role: str
    failed: ActiveModel
    instead: ActiveModel | None
    reason: str
    detail: str


@dataclass(slots=True)
class Health:
    """How many rows a model has answered in the current window, and how many it spoiled."""

    rows: int = 0
    bad: int = 0
    failed: bool = field(default=False)

    def add(self, scored: Scored) -> str:
        """Count one batch; the reason when the model has just become unfit, else an empty text."""
        if self.rows >= HEALTH_ROWS:
            self.rows = self.bad = 0
        self.rows += len(scored.bad)
        self.bad += sum(each.reason != FEATURES_NONFINITE for each in scored.rows)
        if self.failed or self.bad * HEALTH_ROWS <= HEALTH_BAD * max(self.rows, HEALTH_ROWS):
            return ""
        self.failed = True
        return MODEL_NONFINITE
