"""One partition number of the join: four topics in, joined.v1, profiles of answers and dead letters out."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.feedback.core.answers import AnswerProfiles
from services.feedback.core.join import JoinFold, Turned
from services.feedback.core.reasons import REASONS
from services.feedback.core.spec import JoinSpec
from shared.codec.arrays import digest_of
from shared.codec.batch import Batch, Column
from shared.codec.frame import split_frames
from shared.contracts.pipeline import Pipeline
from shared.control.records import Record, Records
from shared.runtime.merge import NEVER
from shared.runtime.polled import Polled
from shared.runtime.tables import ProgressWriter, Table, empty_rows
from shared.runtime.unit import Arrays, DeadLetter, Emission, Out
from shared.topics import LABELS

_PROFILE = "profile|"


@dataclass(frozen=True, slots=True)
class JoinTables:
    """The topics of the join; `labels` is labels.v1 by its pinned schema, for dead letters.

    `profiles` is none where nobody watches the answers.
    """

    accepted: Table
    features: Table
    predictions: Table
    shadows: Table
    joined: Table
    labels: Table
    profiles: Records | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is read."""
        return (self.accepted.topic, self.features.topic, self.predictions.topic, self.shadows.topic)


class JoinUnit:
    """Partition `number` of the four inputs.

    What was read is in the outputs or in the state at once, so the committed offsets are those of the reads;
    accepted rows that wait for an answer are state.
    """

    def __init__(self, pipeline: Pipeline, number: int, tables: JoinTables) -> None:
        self._number, self._tables = number, tables
        self.fold = JoinFold(JoinSpec.of(pipeline), number)
        self._key = pipeline.event.key
        every = pipeline.policy.drift.profile_rows
        self._answers = (
            None if tables.profiles is None else AnswerProfiles(number, pipeline.class_count, every)
        )
        self._tell = ProgressWriter(tables.joined, number, copies=1)
        self._told: tuple[int, bool] | None = None
        self._held: Mapping[str, int] = {}

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:  # noqa: ARG002 - time is in the rows
        """Take what was read, and say what follows from it."""
        if not polled:
            return Emission()
        profiles = self._take(polled)
        step = self.fold.step()
        emission = Emission(next_offsets={part.topic: int(part.offsets[-1]) + 1 for part in polled})
        if step.outcomes:
            emission.outs.append(self._out(Batch.concat(step.outcomes)))
        if profiles and self._tables.profiles is not None:
            emission.outs.append(self._tables.profiles.out([(str(self._number), each) for each in profiles]))
        for turned in step.turned:
            emission.dead += self._letters(turned)
        emission.good = max(0, step.passed - len(emission.dead))
        waiting = self.fold.waiting
        self._held = (
            {self._tables.accepted.topic: waiting}
            if waiting
            else dict.fromkeys(self._tables.inputs[1:], self.fold.open_rows)
        )
        return emission

    def replay(self, polled: Sequence[Polled]) -> None:
        """The same without a word outside."""
        if polled:
            self._take(polled)
            self.fold.step()

    def _take(self, polled: Sequence[Polled]) -> list[Record]:
        """Take in what was read; the profiles of answers that it fills."""
        tables, fold = self._tables, self.fold
        profiles: list[Record] = []
        for part in polled:
            if part.topic == tables.accepted.topic:
                fold.take_accepted(tables.accepted.read(part).having(key=Column(part.keys, ~part.key_null)))
            elif part.topic == tables.features.topic:
                fold.take_vectors(tables.features.read(part))
            elif part.topic == tables.predictions.topic:
                answers = _answers(tables.predictions, part)
                fold.take_answers(answers, part.offsets)
                if self._answers is not None:
                    profiles += self._answers.step(answers)
            else:
                fold.take_shadows(_answers(tables.shadows, part), part.offsets)
        return profiles

    def _out(self, outcomes: Batch) -> Out:
        table, rows = self._tables.joined, outcomes.rows
        envelope = {"order_time", "late", "unit", "source_partition", "source_offset"}
        inner = {f"event.{n}": column for n, column in outcomes.columns.items() if n not in envelope}
        outer = {name: outcomes[name] for name in envelope}
        batch = empty_rows(table.program, rows).having(event=np.ones(rows, np.bool_), **outer, **inner)
        return Out(table.topic, outcomes["key"].strings, table.write(batch), np.zeros(rows, np.int32))

    def _letters(self, turned: Turned) -> list[DeadLetter]:
        """The labels as they would stand on labels.v1 in the pinned schema: what can be sent again."""
        rows, table = turned.rows, self._tables.labels
        names = [spec.name for spec in table.program.columns]
        values = table.write(Batch({n: rows[f"label.{n}"] for n in names}, rows.rows)).to_list()
        keys, null = rows["key"].strings.to_list(), ~rows["key"].mask()
        partitions, offsets = rows["source_partition"].array.tolist(), rows["source_offset"].array.tolist()
        letters = []
        for at, code in enumerate(turned.codes.tolist()):
            reason, message = REASONS[code]
            letters.append(
                DeadLetter(
                    reason=reason,
                    message=message,
                    topic=table.topic,
                    partition=partitions[at],
                    offset=offsets[at],
                    timestamp=int(turned.times[at]),
                    key=None if null[at] else keys[at],
                    value=values[at],
                )
            )
        return letters

    def at_end(self, topic: str, reached: bool) -> None:
        """Of no use here: idleness is written in the log."""

    def progress(self) -> list[Out]:
        """How far the accepted rows are done with, when that has changed."""
        now = (self.fold.clock, self.fold.idle)
        if now == self._told or now[0] == NEVER:
            return []
        self._told = now
        return [self._tell.out(now[0], now[1], np.zeros(1, np.int32))]

    def held(self) -> Mapping[str, int]:
        """Accepted rows that wait for answers, or answers that wait for accepted rows; never both.

        While an accepted row waits, no topic with answers may be paused: the one that it waits for may be
        behind many others.
        """
        return self._held

    def snapshot(self) -> Arrays:
        """The book, the accepted rows that wait, and the profile of answers under way."""
        profile = {} if self._answers is None else self._answers.snapshot()
        return {**self.fold.snapshot(), **{f"{_PROFILE}{name}": array for name, array in profile.items()}}

    def restore(self, arrays: Arrays) -> None:
        """Take up the state that `snapshot` gave, here or before answers were profiled."""
        own = {n.removeprefix(_PROFILE): array for n, array in arrays.items() if n.startswith(_PROFILE)}
        self.fold.restore({n: array for n, array in arrays.items() if not n.startswith(_PROFILE)})
        if own and self._answers is not None:
            self._answers.restore(own)
        self._told = None

    def digest(self) -> str:
        """sha256 over the state's meaning."""
        if self._answers is None:
            return self.fold.digest()
        profile = digest_of(self._answers.snapshot())
        return hashlib.sha256(f"{self.fold.digest()} {profile}".encode()).hexdigest()


def _answers(table: Table, polled: Polled) -> Batch:
    """As `Table.read`, but the records' own `input_partition` and `input_offset` stay."""
    ids, payload, status = split_frames(polled.values)
    decoded = table.program.decode(payload)
    wrong = (status != 0) | (ids != table.schema_id) | (decoded.status != 0) | polled.value_null
    return table.read(polled) if wrong.any() else decoded.batch


def label_table(pipeline: Pipeline, schema_id: int) -> Table:
    """labels.v1 by its pinned schema."""
    if pipeline.label is None:
        raise ValueError(f"{pipeline.name} has no labels")
    return Table.of(LABELS.of(pipeline.name), schema_id, pipeline.label.avro)
