"""The permanent challenger: an online learner that has learnt the whole ledger, a sealed segment at a time.

Its state behind segment s follows from segments 0 to s alone, each with its outcomes as they stood at its end.
It is kept, so that a run learns only what has come since.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from services.retrainer.core.evaluate import Classes
from services.retrainer.core.kinds.online import OnlineLearner
from services.retrainer.core.kinds.rows import TrainingRows
from services.retrainer.core.ledger import LearningRows, learnable
from services.retrainer.core.recipe import SEGMENT_ROWS
from services.retrainer.core.segments import ledger_rows, unseal
from services.retrainer.core.steps import step_key
from services.retrainer.kept import Kept
from shared.models.building import Features


@dataclass(frozen=True, slots=True)
class Challenger:
    """Where its states and segments are kept; `segments` are the sha256 of all whole ones, oldest first."""

    kept: Kept
    segments: tuple[str, ...]
    features: Features
    classes: Classes
    code: str

    def before(self, sequence: int) -> OnlineLearner:
        """The learner that knows every whole segment that ends before `sequence`."""
        whole = min(len(self.segments), sequence // SEGMENT_ROWS)
        known = whole
        while known and self.kept.step(self._key(known)) is None:
            known -= 1
        learner = self._kept(known)
        for number in range(known, whole):
            table = unseal(self.kept.get("segments", self.segments[number]))
            learner.learn(training_rows(learnable(ledger_rows([table], self.features.names)), self))
            self.kept.put_step(self._key(number + 1), {"state": self.kept.put("blobs", learner.snapshot())})
        return learner

    def _kept(self, known: int) -> OnlineLearner:
        if not known:
            return OnlineLearner(self.features, self.classes.count)
        state = self.kept.get("blobs", self.kept.step(self._key(known))["state"])
        return OnlineLearner.restore(state, self.features, self.classes.count)

    def _key(self, known: int) -> str:
        terms: JsonValue = [self.features.fingerprint, self.classes.count, self.classes.positive]
        return step_key("online", list(self.segments[:known]), self.code, terms)


def training_rows(rows: LearningRows, of: Challenger) -> TrainingRows:
    """Rows in the form of the training code; those with a value that is no number are left out."""
    good = finite(rows)
    return TrainingRows(
        features=of.features,
        matrix=good.matrix,
        classes=good.classes,
        class_count=of.classes.count,
        weights=None,
        event_times=good.event_times,
        sequences=good.sequences,
        manifest={},
        positive=of.classes.positive,
    )


def finite(rows: LearningRows) -> LearningRows:
    """The rows whose every feature is a number."""
    good = np.isfinite(rows.matrix).all(axis=1)
    return rows if good.all() else rows.pick(np.flatnonzero(good))
