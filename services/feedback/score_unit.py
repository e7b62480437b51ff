"""The one unit of the score stage: joined.v1 in, labeled.v1 and scores.v1 out."""

from collections.abc import Sequence

import numpy as np

from services.feedback.core.score import ScoreFold
from services.feedback.core.spec import JoinSpec
from services.feedback.core.tally import Figure
from shared.codec.batch import Batch, Floats, Ints, Strings
from shared.contracts.pipeline import Pipeline
from shared.runtime.merged import MergedUnit
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.runtime.unit import Emission, Out


class ScoreUnit(MergedUnit):
    """Merges what the units of the join wrote, numbers it, and says the scores behind it."""

    def __init__(self, pipeline: Pipeline, joined: Table, labeled: Table, scores: Table) -> None:
        self._scores, self._ledger = scores, ScoreFold(JoinSpec.of(pipeline))
        in_order = pipeline.order == "event"

        def write(batch: Batch) -> list[Out]:
            places = np.zeros(batch.rows, np.int32)
            return [Out(labeled.topic, batch["key"].strings, labeled.write(batch), places)]

        super().__init__(0, joined, self._ledger, write, pipeline.partitions, None, in_order)

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:
        """Fold what was read; the outcomes, and the figures that they complete."""
        self._ledger.said = []
        emission = super().step(polled, now_ms)
        if self._ledger.said:
            emission.outs = [*emission.outs, self._figures(self._ledger.said)]
        return emission

    def _figures(self, said: Sequence[Figure]) -> Out:
        names = [self._ledger.groups.named[figure.group] for figure in said]
        columns: dict[str, Ints | Floats | Strings] = {
            "model_version": np.array([version for version, _, _ in names], np.int64),
            "model_digest": Strings.of([digest for _, digest, _ in names]),
            "role": Strings.of([role for _, _, role in names]),
        }
        for name in ("sequence", "order_time", "rows", "total"):
            columns[name] = np.array([getattr(figure, name) for figure in said], np.int64)
        for name in ("value", "coverage"):
            columns[name] = np.array([getattr(figure, name) for figure in said], np.float64)
        for name in ("slice", "metric", "window", "state"):
            columns[name] = Strings.of([getattr(figure, name).encode() for figure in said])
        keys = Strings.of([str(version).encode() for version, _, _ in names])
        table = self._scores
        return Out(table.topic, keys, table.write(Batch.of(columns)), np.zeros(len(said), np.int32))
