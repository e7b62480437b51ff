"""The models that answer, by role; what a model has spoiled of late."""

from dataclasses import dataclass

from services.inference.core.registry import Claim
from services.inference.core.scoring import FEATURES_NONFINITE, MODEL_NONFINITE, Scored, Scorer
from shared.contracts.policies import RollbackPolicy
from shared.models.announcement import Announcement

# Bad rows are counted over a window of this many, slow ones over at least as many.
HEALTH_ROWS = 10_000
LATENCY_ROWS = 1_000
# Where no time is declared a model may take ten times what its manifest says. A call may cost a millisecond
# whatever is in it, so that single rows are not held against a model.
LATENCY_FACTOR = 10.0
CALL_SECONDS = 0.001
MODEL_LATENCY = "model.latency"


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
class Tolerance:
    """What a model may spoil and take before it is taken out."""

    error_rate: float = 0.001
    """Share of the rows of a window without a score."""
    row_seconds: float | None = None
    """Seconds a row; None for ten times what the manifest says."""

    @staticmethod
    def of(declared: RollbackPolicy | None) -> "Tolerance":
        """What [policy.rollback] says; the defaults without it.

        >>> Tolerance.of(None).error_rate
        0.001
        """
        if declared is None:
            return Tolerance()
        return Tolerance(declared.max_error_rate, declared.max_row_seconds)


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
    """What a model has answered in the current window, spoiled, and taken of the processor."""

    error_rate: float
    """Share of bad rows that is borne."""
    row_seconds: float
    """Seconds a row that are borne."""
    rows: int = 0
    bad: int = 0
    calls: int = 0
    seconds: float = 0.0
    failed: bool = False

    @staticmethod
    def of(model: ActiveModel, tolerance: Tolerance) -> "Health":
        """A clean record."""
        budget = model.scorer.model.manifest.budget.row_seconds
        return Health(tolerance.error_rate, tolerance.row_seconds or LATENCY_FACTOR * budget)

    def add(self, scored: Scored, seconds: float) -> str:
        """Count one call; the reason when the model has just become unfit, else an empty text."""
        if self.rows >= HEALTH_ROWS:
            self.rows = self.bad = self.calls = 0
            self.seconds = 0.0
        self.rows += len(scored.bad)
        self.bad += sum(each.reason != FEATURES_NONFINITE for each in scored.rows)
        self.calls += 1
        self.seconds += seconds
        reason = "" if self.failed else self._reason()
        self.failed = self.failed or bool(reason)
        return reason

    def _reason(self) -> str:
        if self.bad / max(self.rows, HEALTH_ROWS) > self.error_rate:
            return MODEL_NONFINITE
        granted = self.row_seconds * self.rows + CALL_SECONDS * self.calls
        return MODEL_LATENCY if self.rows >= LATENCY_ROWS and self.seconds > granted else ""

    def told(self, reason: str) -> str:
        """The same for people."""
        if reason == MODEL_LATENCY:
            granted = f"at most {self.row_seconds:.2g} s each are borne"
            return f"took {self.seconds:.2g} s for {self.rows} rows, {granted}"
        return f"{self.bad} of {self.rows} rows had no score"
