"""Batches of feature vectors to batches of predictions, under the model that is active."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.inference.core.decide import Decisions
from services.inference.core.scoring import FEATURES_NONFINITE, BadRow, Scorer
from shared.codec.batch import Batch, Floats, Strings
from shared.errors import Retry
from shared.models.announcement import Announcement

# A model that spoils more than 0.1 % of a window of this many rows falls back to the one before it.
HEALTH_ROWS = 10_000
HEALTH_BAD = 10
# Enough to warm up on; what is kept is the newest batch, cut to this.
RECENT_ROWS = 1024

_CARRIED = (
    "event_id",
    "key",
    "feature_hash",
    "source_partition",
    "source_offset",
    "input_partition",
    "input_offset",
    "event_time",
    "order_time",
    "late",
)


class NoModel(Retry):
    """No model is active yet; hold the input until one is."""


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A model that may answer, and the announcement at `registry_offset` that says so."""

    announcement: Announcement
    registry_offset: int
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class FellBack:
    """The active model spoiled too many rows; the one before it answers again."""

    failed: ActiveModel
    active: ActiveModel
    bad: int
    rows: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Predictions of the good rows, the bad rows by their place in the input, and a fall-back if one came."""

    predictions: Batch
    bad: tuple[BadRow, ...]
    fell_back: FellBack | None = None


class InferenceFold:
    """State: the active model, the one before it, and how many rows the active one has spoiled."""

    def __init__(self, feature_names: Sequence[str], decisions: Decisions) -> None:
        self._columns = tuple(f"features.{name}" for name in feature_names)
        self._decisions = decisions
        self.active: ActiveModel | None = None
        self.previous: ActiveModel | None = None
        self._rows = self._bad = 0
        self._recent = np.empty((0, len(self._columns)), np.float64)

    @property
    def recent(self) -> Floats:
        """The newest vectors float64[m, k], to warm up on; none at first. Safe from any thread."""
        return self._recent

    def activate(self, model: ActiveModel) -> None:
        """Answer with this model from the next batch on."""
        self._swap(model, self.active)

    def matrix(self, batch: Batch) -> Floats:
        """The vectors float64[n, k] of a batch in the features layout, in the pipeline's order."""
        out = np.empty((batch.rows, len(self._columns)), np.float64)
        for place, name in enumerate(self._columns):
            out[:, place] = batch[name].array
        return out

    def step(self, batch: Batch) -> Answer:
        """Score rows in the features layout with `input_partition` and `input_offset` beside it.

        NoModel while none is active.
        """
        active = self.active
        if active is None:
            raise NoModel("no model has been announced and proven yet")
        matrix = self.matrix(batch)
        scored = active.scorer.score(matrix)
        if batch.rows:
            self._recent = matrix[-RECENT_ROWS:]
        good, scores = batch, scored.scores
        if scored.rows:
            keep = ~scored.bad
            good, scores = batch.take(keep), scores[keep]
        spoiled = sum(each.reason != FEATURES_NONFINITE for each in scored.rows)
        return Answer(self._predictions(good, scores, active), scored.rows, self._judge(batch.rows, spoiled))

    def _predictions(self, batch: Batch, scores: Floats, active: ActiveModel) -> Batch:
        rows, said = batch.rows, active.announcement
        return Batch.of({name: batch[name] for name in _CARRIED}).having(
            score=scores,
            label=self._decisions.decide(scores),
            model_name=Strings.repeated(said.name.encode(), rows),
            model_version=np.full(rows, said.version, np.int64),
            model_digest=Strings.repeated(said.digest.encode(), rows),
            role=Strings.repeated(b"champion", rows),
            registry_offset=np.full(rows, active.registry_offset, np.int64),
        )

    def _judge(self, rows: int, bad: int) -> FellBack | None:
        if self._rows >= HEALTH_ROWS:
            self._rows = self._bad = 0
        self._rows += rows
        self._bad += bad
        failed, good = self.active, self.previous
        if self._bad * HEALTH_ROWS <= HEALTH_BAD * max(self._rows, HEALTH_ROWS) or not failed or not good:
            return None
        fell = FellBack(failed, good, self._bad, self._rows)
        self._swap(good, None)
        return fell

    def _swap(self, active: ActiveModel, previous: ActiveModel | None) -> None:
        self.active, self.previous = active, previous
        self._rows = self._bad = 0
