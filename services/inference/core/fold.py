"""Batches of feature vectors to batches of predictions, under the models that have a role."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from services.inference.core.explaining import Explainer
from services.inference.core.lineup import ActiveModel, Failure, Health, Lineup, Tolerance
from services.inference.core.routing import Router
from services.inference.core.rows import Answering, carried, chosen, kept, merged, signed_by
from services.inference.core.scoring import BadRow, Scored
from shared.codec.batch import Batch, Column, Floats, Ints
from shared.errors import Retry
from shared.models.announcement import CANARY, CHAMPION, SHADOW

# Enough to warm up on; what is kept is the newest batch, cut to this.
RECENT_ROWS = 1024


class NoModel(Retry):
    """No model is active yet; hold the input until one is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Predictions of the good rows, what the shadows gave for them, and the bad rows by place in the input."""

    predictions: Batch
    shadows: tuple[Batch, ...]
    bad: tuple[BadRow, ...]
    failures: tuple[Failure, ...] = ()
    attributions: tuple[Batch, ...] = ()
    unexplained: int = 0
    """Rows that were sampled and could not be explained."""


class InferenceFold:
    """State: the models in their roles, the champion before, and how many rows each model has spoiled."""

    def __init__(
        self,
        feature_names: Sequence[str],
        answering: Answering,
        model_name: str,
        cpu_seconds: Callable[[], float] = lambda: 0.0,
        explainer: Explainer | None = None,
        tolerance: Tolerance | None = None,
    ) -> None:
        """`cpu_seconds` is what this thread has taken of the processor: waiting for one is no model's fault."""
        self._cpu_seconds = cpu_seconds
        self._explainer = explainer
        self._tolerance = tolerance or Tolerance()
        self._columns = tuple(f"features.{name}" for name in feature_names)
        self._answering = answering
        self._router = Router(model_name)
        self.lineup = Lineup()
        self.previous: ActiveModel | None = None
        self._failed: set[int] = set()
        self._health: dict[int, Health] = {}
        self._recent = np.empty((0, len(self._columns)), np.float64)

    @property
    def recent(self) -> Floats:
        """The newest vectors float64[m, k], to warm up on; none at first. Safe from any thread."""
        return self._recent

    def activate(self, model: ActiveModel) -> None:
        """Let this one answer everything from the next batch on."""
        self.obey(Lineup(model))

    def obey(self, lineup: Lineup) -> None:
        """Let these models answer from the next batch on; those that have failed stay out."""
        old, lineup = self.lineup.champion, lineup.without(self._failed)
        if lineup.champion is None:  # only a failed one: what answers in its stead goes on
            lineup = Lineup(old, lineup.canary, lineup.shadows, lineup.spare)
        elif old is not None and old.digest != lineup.champion.digest:
            self.previous = old
        if not lineup.spare:
            self.previous = None
        self._change(lineup)

    def matrix(self, batch: Batch) -> Floats:
        """The vectors float64[n, k] of a batch in the features layout, in the pipeline's order."""
        out = np.empty((batch.rows, len(self._columns)), np.float64)
        for place, name in enumerate(self._columns):
            out[:, place] = batch[name].array
        return out

    def step(self, batch: Batch) -> Answer:
        """Score rows in the features layout with `input_partition` and `input_offset` beside it.

        NoModel while there is no champion.
        """
        champion = self.lineup.champion
        if champion is None:
            raise NoModel("no model has been announced and proven yet")
        matrix = self.matrix(batch)
        failures: list[Failure] = []
        scored, who = self._answers(batch, matrix, champion, failures)
        if batch.rows:
            self._recent = matrix[-RECENT_ROWS:]
        good, bad = batch, scored.rows
        if bad:
            keep = ~scored.bad
            good, matrix, scored = batch.take(keep), matrix[keep], kept(scored, keep)
            who = {name: column.take(keep) for name, column in who.items()}
        base = carried(good)
        shadows, counts = self._shadows(base, matrix, failures)
        columns = base | who | self._answering.columns(scored)
        predictions = Batch(columns | {"shadows": Column(counts)}, good.rows)
        explained: list[Batch] = []
        unexplained = 0
        if self._explainer is not None:
            acting = [champion, *([self.lineup.canary] if self.lineup.canary else [])]
            explained, unexplained = self._explainer.explain(acting, predictions, matrix)
        for failure in failures:
            self._take_out(failure)
        return Answer(predictions, shadows, bad, tuple(failures), tuple(explained), unexplained)

    def _answers(
        self, batch: Batch, matrix: Floats, champion: ActiveModel, failures: list[Failure]
    ) -> tuple[Scored, dict[str, Column]]:
        """What champion and canary give, each for its keys, and who gave it."""
        rows, canary = batch.rows, self.lineup.canary
        if canary is None:
            return self._scored(CHAMPION, champion, matrix, failures), signed_by(champion, CHAMPION, rows)
        mask = self._router.canary(batch["key"].strings, canary.announcement.share)
        parts = []
        for role, model, whose in ((CHAMPION, champion, ~mask), (CANARY, canary, mask)):
            places = np.flatnonzero(whose)
            if len(places) or role == CHAMPION:
                parts.append((places, self._scored(role, model, matrix[places], failures)))
        who = chosen(mask, signed_by(canary, CANARY, rows), signed_by(champion, CHAMPION, rows))
        return merged(rows, parts), who

    def _shadows(
        self, base: dict[str, Column], matrix: Floats, failures: list[Failure]
    ) -> tuple[tuple[Batch, ...], Ints]:
        """What each shadow gives for the rows that were answered, and how many rows each event has of them."""
        counts = np.zeros(len(matrix), np.int64)
        found = []
        for model in self.lineup.shadows:
            scored = self._scored(SHADOW, model, matrix, failures)
            columns = base
            if scored.rows:
                keep = ~scored.bad
                columns, scored = {n: c.take(keep) for n, c in base.items()}, kept(scored, keep)
                counts += keep
            else:
                counts += 1
            rows = len(scored.scores)
            columns = columns | signed_by(model, SHADOW, rows) | self._answering.columns(scored)
            found.append(Batch(columns | {"shadows": Column(np.zeros(rows, np.int64))}, rows))
        return tuple(found), counts

    def _scored(self, role: str, model: ActiveModel, matrix: Floats, failures: list[Failure]) -> Scored:
        began = self._cpu_seconds()
        scored = model.scorer.score(matrix)
        health = self._health[model.registry_offset]
        reason = health.add(scored, self._cpu_seconds() - began)
        if reason:
            instead = self.previous if role == CHAMPION else None
            failures.append(Failure(role, model, instead, reason, health.told(reason)))
        return scored

    def _take_out(self, failure: Failure) -> None:
        """Go on without a model; a champion stays where there is none to go back to."""
        if failure.role == CHAMPION and failure.instead is None:
            return
        self._failed.add(failure.failed.registry_offset)
        lineup = self.lineup.without(self._failed)
        if failure.role == CHAMPION:
            lineup = Lineup(failure.instead, lineup.canary, lineup.shadows, lineup.spare)
            self.previous = None
        self._change(lineup)

    def _change(self, lineup: Lineup) -> None:
        """Swap; a model that stays keeps its record, one that comes begins with a clean one."""
        self.lineup = lineup
        self._health = {
            model.registry_offset: self._health.get(model.registry_offset)
            or Health.of(model, self._tolerance)
            for model in lineup.models
        }
