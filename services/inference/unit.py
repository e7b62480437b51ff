"""One partition of features.v1: vectors in, predictions and dead letters out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.inference.core.fold import Answer, InferenceFold
from services.inference.core.lineup import Failure
from services.inference.core.scoring import BadRow
from shared.codec.batch import Batch
from shared.codec.hashing import partition_of
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.runtime.unit import Arrays, DeadLetter, Emission, Out


@dataclass(frozen=True, slots=True)
class Targets:
    """Where answers go: those to act on, those of the shadows, and why they came out so."""

    predictions: Table
    shadows: Table
    attributions: Table | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears what the answers leave to be said."""

    failed: Callable[[Failure], None]
    unexplained: Callable[[int], None] = lambda _: None


class ScoringUnit:
    """All units of a worker share one fold, so that a swap of models falls between two batches of all."""

    def __init__(
        self,
        source: Table,
        targets: Targets,
        partitions: int,
        fold: InferenceFold,
        told: Told,
    ) -> None:
        self._source, self._targets, self._partitions = source, targets, partitions
        self._fold, self._told = fold, told

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:  # noqa: ARG002 - time is in the rows
        """Answer every vector; a row that the model cannot score becomes a dead letter, alone.

        Raises:
            Retry: no champion is there yet; nothing was changed.
        """
        if not polled:
            return Emission()
        batch = Batch.concat([self._source.read(part) for part in polled])
        answer = self._fold.step(batch)
        for failure in answer.failures:
            self._told.failed(failure)
        if answer.unexplained:
            self._told.unexplained(answer.unexplained)
        return Emission(
            outs=self._outs(answer),
            dead=[_letter(polled, bad) for bad in answer.bad],
            next_offsets={self._source.topic: int(polled[-1].offsets[-1]) + 1},
            good=answer.predictions.rows,
        )

    def _outs(self, answer: Answer) -> list[Out]:
        targets = self._targets
        outs = [self._out(targets.predictions, answer.predictions)]
        outs += [self._out(targets.shadows, rows) for rows in answer.shadows]
        if targets.attributions is not None:
            outs += [self._out(targets.attributions, rows) for rows in answer.attributions]
        return [out for out in outs if len(out.values)]

    def _out(self, target: Table, rows: Batch) -> Out:
        keys = rows["key"].strings
        places = partition_of(keys, self._partitions).astype(np.int32, copy=False)
        return Out(target.topic, keys, target.write(rows), places)

    def replay(self, polled: Sequence[Polled]) -> None:
        """Nothing to rebuild: the unit keeps no state."""

    def at_end(self, topic: str, reached: bool) -> None:
        """Of no use here."""

    def progress(self) -> list[Out]:
        """Nobody merges predictions."""
        return []

    def held(self) -> Mapping[str, int]:
        """Holds nothing back."""
        return {}

    def snapshot(self) -> Arrays:
        """No state."""
        return {}

    def restore(self, arrays: Arrays) -> None:
        """No state."""

    def digest(self) -> str:
        """No state."""
        return ""


def _letter(polled: Sequence[Polled], bad: BadRow) -> DeadLetter:
    row = bad.row
    for part in polled:
        if row < len(part):
            at = np.array([row])
            return DeadLetter(
                reason=bad.reason,
                message=bad.message,
                topic=part.topic,
                partition=part.partition,
                offset=int(part.offsets[row]),
                timestamp=int(part.timestamps[row]),
                key=part.keys.take(at).to_list()[0],
                value=part.values.take(at).compact().to_list()[0],
            )
        row -= len(part)
    raise IndexError(f"row {bad.row} is behind the batch")
