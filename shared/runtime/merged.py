"""A unit over one inner topic: read, merge, fold, write. The features stages are such units."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from shared.codec.arrays import arrays_to_batch, batch_to_arrays, digest_of
from shared.codec.batch import Batch
from shared.runtime.merge import EVENT, IDLE, LABEL, NEVER, PROGRESS, Merge
from shared.runtime.polled import Polled
from shared.runtime.tables import ProgressWriter, Table
from shared.runtime.unit import Arrays, Emission, Out


class Fold(Protocol):
    """The pure core of a stage over rows in merged order."""

    def step(self, batch: Batch) -> Batch:
        """Fold the rows into the state; return what follows from them."""
        ...

    def snapshot(self) -> Arrays:
        """The state as plain arrays."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Take up a state that `snapshot` gave."""
        ...

    def digest(self) -> str:
        """sha256 over what the state means."""
        ...


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who must hear where a unit has come to: all `partitions` of `table`'s topic."""

    table: Table
    partitions: int


class _InOrder:
    """The merge of one source: rows stand in their order already. Keeps where it has come to."""

    def __init__(self) -> None:
        self.frontier = NEVER
        self.all_idle = False

    def push(self, rows: Batch) -> Batch:
        kind, time = rows["kind"].array, rows["order_time"].array
        self.frontier = max(self.frontier, int(time.max()))
        self.all_idle = bool(kind[-1] == IDLE)
        return rows.take(kind < PROGRESS)


class MergedUnit:
    """One partition of an inner topic.

    `sources` is the number of upstream units that write to the partition; with one, and with
    `in_order=False` (order = "arrival" in the declaration), rows are folded as they come. `committed` is
    given the rows written, once their transaction stands.
    """

    def __init__(
        self,
        number: int,
        table: Table,
        fold: Fold,
        write: Callable[[Batch], list[Out]],
        sources: int,
        listeners: Listeners | None,
        in_order: bool = True,
        committed: Callable[[Batch], None] | None = None,
    ) -> None:
        self._table, self._fold, self._write = table, fold, write
        self._merge: Merge | _InOrder = Merge(sources) if sources > 1 and in_order else _InOrder()
        self._progress = None
        if listeners is not None:
            self._progress = ProgressWriter(listeners.table, number, listeners.partitions)
            self._everywhere = np.arange(listeners.partitions, dtype=np.int32)
        self._committed = committed
        self._told: tuple[int, bool] | None = None

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:  # noqa: ARG002 - time is in the rows
        """Fold what was read; without rows nothing changes."""
        if not polled:
            return Emission()
        late, out = self._advance(polled)
        outs = self._write(out) if out.rows else []
        after = int(polled[-1].offsets[-1]) + 1
        tell = self._committed
        hooks: list[Callable[[], None]] = [partial(tell, out)] if tell is not None and out.rows else []
        return Emission(outs, next_offsets={self._table.topic: after}, good=1, late=late, after_commit=hooks)

    def replay(self, polled: Sequence[Polled]) -> None:
        """The same without a word outside."""
        if polled:
            self._advance(polled)

    def _advance(self, polled: Sequence[Polled]) -> tuple[int, Batch]:
        rows = Batch.concat([self._table.read(part) for part in polled])
        released = self._merge.push(_with_kinds(rows))
        return int(released["late"].array.sum()), self._fold.step(released)

    def at_end(self, topic: str, reached: bool) -> None:
        """Of no use here: idleness is written in the log."""

    def progress(self) -> list[Out]:
        """Where the merge stands, to every partition downstream, when it has moved."""
        now = (self._merge.frontier, self._merge.all_idle)
        if self._progress is None or now == self._told or now[0] == NEVER:
            return []
        self._told = now
        return [self._progress.out(now[0], now[1], self._everywhere)]

    def held(self) -> Mapping[str, int]:
        """Never pauses its input: the marks it waits for stand behind the rows it has read."""
        return {}

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for other sources."""
        waiting = self._merge.waiting if isinstance(self._merge, Merge) else None
        return 0 if waiting is None else waiting.rows

    def snapshot(self) -> Arrays:
        """The fold's state, the marks, and the rows held back."""
        fold = {f"fold|{name}": array for name, array in self._fold.snapshot().items()}
        return {**fold, **self._merge_arrays()}

    def restore(self, arrays: Arrays) -> None:
        """Take up a state that `snapshot` gave."""
        prefix = "fold|"
        inner = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        self._fold.restore(inner)
        if isinstance(self._merge, Merge):
            self._merge.restore(arrays["marks"], arrays["idle"], arrays["frontier"])
            self._merge.waiting = arrays_to_batch(arrays, "waiting|")
        else:
            self._merge.frontier = int(arrays["frontier"][0])
            self._merge.all_idle = bool(arrays["idle"][0])

    def digest(self) -> str:
        """sha256 over the fold's digest, the marks and the rows held back."""
        return digest_of(
            {**self._merge_arrays(), "fold": np.frombuffer(self._fold.digest().encode(), np.uint8)}
        )

    def _merge_arrays(self) -> Arrays:
        merge = self._merge
        if isinstance(merge, _InOrder):
            return {
                "frontier": np.array([merge.frontier], np.int64),
                "idle": np.array([merge.all_idle], np.uint8),
            }
        held = {} if merge.waiting is None else batch_to_arrays(merge.waiting, "waiting|")
        return {"marks": merge.marks, "idle": merge.idle, "frontier": merge.frontiers, **held}


def _with_kinds(rows: Batch) -> Batch:
    """Add what the merge needs: what each row is and from which upstream unit."""
    idle = rows["progress.idle"].array.astype(np.bool_)
    progress = np.where(idle, IDLE, PROGRESS)
    label = rows["label"].array if "label" in rows else np.zeros(rows.rows, np.bool_)
    said = np.where(rows["event"].array, EVENT, np.where(label, LABEL, progress))
    return rows.having(kind=said.astype(np.int64), queue=rows["unit"].array)
