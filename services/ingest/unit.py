"""One partition number of ingest: two sources, one door, one order. Deterministic; no input or output."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.ingest.core.dedup import Dedup
from services.ingest.core.door import SourceClock
from services.ingest.core.fold import Counts, SourceState, count, fold
from services.ingest.core.intake import Schemas, judge
from services.ingest.core.output import Placed, accepted, dead_letters
from services.ingest.core.rows import Chunk, Queue
from services.ingest.core.spec import Limits, Spec, event_spec, label_spec
from shared.codec.batch import Batch, Ints
from shared.codec.program import STATUS_REASONS
from shared.contracts.pipeline import Pipeline
from shared.runtime.control import Replays
from shared.runtime.merge import EVENT, IDLE, NEVER, PROGRESS, Merge
from shared.runtime.polled import Polled
from shared.runtime.tables import ProgressWriter, Table
from shared.runtime.unit import Arrays, Emission, Out
from shared.topics import EVENTS, LABELS

_KINDS = ("label", "event")


@dataclass(slots=True)
class _Source:
    """One topic of the unit: its rules, released state, waiting rows, clock, and read position."""

    spec: Spec
    state: SourceState
    clock: SourceClock
    queue: Queue
    position: int = 0
    told_offset: int = -1


class IngestUnit:
    """The door of one partition number.

    Args:
        pipeline: the declaration.
        number: the partition number p of events.v1, labels.v1 and accepted.v1.
        schemas: what the registry says of schema ids.
        table: accepted.v1 with its registered schema.
        replays: the word of the replays under way, kept up to date by the caller before each `step`.
        limits: sizes beyond which a record is turned away.
        now_ms: the clock at the making; rows are judged by it when they are replayed after a restart.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        number: int,
        schemas: Schemas,
        table: Table,
        replays: Replays,
        limits: Limits,
        now_ms: int,
    ) -> None:
        self._number, self._schemas, self._table, self._replays = number, schemas, table, replays
        self._in_order = pipeline.order == "event"
        self._now_ms = now_ms
        avro = tuple(STATUS_REASONS)
        common = (number, pipeline.partitions, limits, avro)
        specs = [
            event_spec(pipeline, EVENTS.of(pipeline.name), *common),
            label_spec(pipeline, LABELS.of(pipeline.name), *common),
        ]
        horizon = pipeline.event.dedup_horizon_ms
        self._sources = [
            _Source(spec, SourceState(spec, Dedup(horizon)), SourceClock(), Queue())
            for spec in specs
            if spec is not None
        ]
        self._by_topic = {source.spec.topic: source for source in self._sources}
        self._merge = Merge(len(self._sources))
        self._tell = ProgressWriter(table, number, copies=1)
        self._told: tuple[int, bool] | None = None
        self.counts = Counts()

    # The fold.

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:
        """Judge what was read, merge it, and let through what every source has passed.

        Raises:
            Retry: the registry is away; nothing has happened, give the same rows again.
        """
        chunks = self._judge(polled, now_ms)
        self._now_ms = now_ms
        for source, chunk in chunks:
            source.queue.push(chunk)
            source.position = int(chunk.polled.offsets[-1]) + 1
            source.clock.hear(now_ms, int(chunk.order[-1]))
        rows = self._rows(chunks)
        said = self._said(now_ms, rows.rows)
        if not rows.rows and not said.rows:
            return Emission()
        return self._release(self._merge.push(Batch.concat([rows, said])))

    def replay(self, polled: Sequence[Polled]) -> None:
        """Fold in silence what was released before; topics do not touch each other, so no merge is needed."""
        reached = self._merge.frontier
        for source, chunk in self._judge(polled, self._now_ms):
            fold(source.state, chunk)
            source.position = source.state.next_offset
            source.clock.order_ms = source.state.order_ms
            reached = max(reached, source.state.order_ms)
        self._begin_at(reached)

    def _judge(self, polled: Sequence[Polled], now_ms: int) -> list[tuple[_Source, Chunk]]:
        """Judge everything before anything changes."""
        last = {topic: source.clock.order_ms for topic, source in self._by_topic.items()}
        judged = []
        for part in polled:
            source = self._by_topic[part.topic]
            if len(part):
                chunk = judge(source.spec, self._schemas, part, last[part.topic], now_ms)
                last[part.topic] = int(chunk.order[-1])
                judged.append((source, chunk))
        return judged

    def _rows(self, chunks: list[tuple[_Source, Chunk]]) -> Batch:
        """What was read as rows for the merge, by order time: the log gives no order between topics."""
        parts = []
        for source, chunk in chunks:
            queue = self._queue_number(source)
            # A row below its source's mark would overtake those that wait behind the mark.
            order = np.maximum(chunk.order, self._merge.marks[queue])
            parts.append(_rows(source.spec.kind, queue, chunk, order))
        if not parts:
            return _said_rows([])
        whole = Batch.concat(parts)
        if len(parts) == 1:
            return whole
        return whole.take(np.lexsort((whole["kind"].array, whole["order_time"].array)))

    def _queue_number(self, source: _Source) -> int:
        return 0 if source.spec.kind == EVENT else 1

    def _said(self, now_ms: int, read: int) -> Batch:
        """What the door itself says of its sources: marks of replays, idle, or no longer idle."""
        replaying = self._replays.open(now_ms)
        said: list[tuple[int, int, int]] = []
        for source in self._sources:
            queue = self._queue_number(source)
            is_idle = bool(self._merge.idle[queue])
            mark = self._replays.mark_for(source.spec.topic, self._number, source.position)
            if mark is not None and mark > self._merge.marks[queue]:
                said.append((mark, PROGRESS, queue))
                is_idle = False
            if not self._in_order:
                if read or not is_idle:
                    said.append((NEVER, IDLE, queue))
            elif source.clock.idle(now_ms, replaying):
                if not is_idle:
                    said.append((NEVER, IDLE, queue))
            elif is_idle:
                said.append((NEVER, PROGRESS, queue))
        return _said_rows(said)

    def _release(self, released: Batch) -> Emission:
        placed = self._placed(released)
        emission = Emission(next_offsets=self._next_offsets())
        letters = []
        for part in placed:
            reasons = self._sources[0 if part.kind == EVENT else 1].spec.reasons
            letters += dead_letters(reasons, part)
        emission.dead = [letter for _, letter in sorted(letters, key=lambda pair: pair[0])]
        emission.good = released.rows - len(letters)
        emission.late = sum(int(part.late.sum()) for part in placed)
        emission.outs = accepted(self._table, self._number, placed)
        return emission

    def _placed(self, released: Batch) -> list[Placed]:
        """Fold the released rows, topic by topic, and give each chunk its place in the merged order."""
        placed = []
        queues, order = released["queue"].array, released["order_time"].array
        late = released["late"].array if self._in_order else np.zeros(released.rows, np.bool_)
        for source in self._sources:
            at = np.flatnonzero(queues == self._queue_number(source))
            begin = 0
            for chunk in source.queue.pop(at.size):
                passed, verdicts = fold(source.state, chunk)
                count(self.counts, _KINDS[source.spec.kind], verdicts)
                rows = at[begin : begin + len(chunk)]
                placed.append(Placed(source.spec.kind, passed, rows, order[rows], late[rows]))
                begin += len(chunk)
        return placed

    def _next_offsets(self) -> dict[str, int]:
        """The first row not yet released, by topic, where that has moved."""
        moved = {}
        for topic, source in self._by_topic.items():
            if source.state.next_offset != source.told_offset and source.state.next_offset > 0:
                moved[topic] = source.told_offset = source.state.next_offset
        return moved

    # What others ask.

    def at_end(self, topic: str, reached: bool) -> None:
        """The loop's word that the topic's partition has no more records for now, or has again."""
        self._by_topic[topic].clock.at_end = reached

    def progress(self) -> list[Out]:
        """Where this unit has come to, for its own partition of accepted.v1, when that has changed."""
        frontier, idle = self._merge.frontier, self._merge.all_idle
        if (frontier, idle) == self._told or (frontier == NEVER and not idle):
            return []
        self._told = (frontier, idle)
        return [self._tell.out(max(0, frontier), idle, np.array([self._number], np.int32))]

    def held(self) -> Mapping[str, int]:
        """How many rows of each topic wait for the other."""
        return {topic: source.queue.rows for topic, source in self._by_topic.items()}

    # State: what stands at the released offsets; rows that wait are read again.

    def snapshot(self) -> Arrays:
        """Seen ids, place of each source, and the frontier."""
        arrays = {"frontier": np.array([self._merge.frontier], np.int64)}
        for kind, source in self._named():
            arrays |= {f"{kind}|{name}": array for name, array in source.state.arrays().items()}
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Take up what `snapshot` gave."""
        for kind, source in self._named():
            prefix = f"{kind}|"
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            source.state.restore(own)
            source.position = source.told_offset = source.state.next_offset
            source.clock = SourceClock(order_ms=source.state.order_ms)
            source.queue = Queue()
        self._told = None
        self._begin_at(int(arrays["frontier"][0]))

    def digest(self) -> str:
        """sha256 over what was folded up to the released offsets; not over the merge's waiting."""
        whole = hashlib.sha256()
        for _, source in self._named():
            whole.update(source.state.digest())
        return whole.hexdigest()

    def _named(self) -> list[tuple[str, _Source]]:
        return [(_KINDS[source.spec.kind], source) for source in self._sources]

    def _begin_at(self, frontier: int) -> None:
        """A merge in which everything up to `frontier` was released and nothing is known of the sources."""
        count = len(self._sources)
        place = np.full(2, frontier, np.int64)
        self._merge.restore(np.full(count, NEVER, np.int64), np.zeros(count, np.uint8), place)
        self._merge.waiting = None


def _rows(kind: int, queue: int, chunk: Chunk, order: Ints) -> Batch:
    count = len(chunk)
    return Batch.of(
        {
            "order_time": order,
            "kind": np.full(count, kind, np.int64),
            "queue": np.full(count, queue, np.int64),
            "source_partition": np.full(count, chunk.polled.partition, np.int64),
            "source_offset": chunk.polled.offsets,
            "late": np.zeros(count, np.bool_),
        }
    )


def _said_rows(said: list[tuple[int, int, int]]) -> Batch:
    """Words on sources, each (order time, kind, queue), as rows for the merge."""
    count = len(said)
    return Batch.of(
        {
            "order_time": np.array([time for time, _, _ in said], np.int64),
            "kind": np.array([kind for _, kind, _ in said], np.int64),
            "queue": np.array([queue for _, _, queue in said], np.int64),
            "source_partition": np.zeros(count, np.int64),
            "source_offset": np.full(count, -1, np.int64),
            "late": np.zeros(count, np.bool_),
        }
    )
