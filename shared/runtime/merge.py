"""One order from many sources: release the smallest order time that every source has passed.

The merge reads rows in log order. Each row belongs to a source and carries its order time; a progress row
carries only "this source has come to t" or "is idle". After each row everything older than the lowest mark
of the sources that are not idle is released, smallest (order time, labels before events, partition, offset)
first. The result is a function of the rows and their order alone: cutting the rows into other batches gives
the same sequence, and so does reading the sources at other speeds while none is idle.

A row older than what was released (its source had been idle) is *late*: it goes out on arrival, at the
frontier's time, and is counted.
"""

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Batch, Ints
from shared.kernels import kernel

FOREVER = np.iinfo(np.int64).max
NEVER = np.iinfo(np.int64).min

# What a row is; the numbers order rows of one time.
LABEL, EVENT, PROGRESS, IDLE = 0, 1, 2, 3


@kernel
def _low(marks: Ints, idle: npt.NDArray[np.uint8]) -> int:
    low = FOREVER
    for s in range(marks.size):
        if idle[s] == 0 and marks[s] < low:
            low = marks[s]
    return low


@kernel
def _before(a: int, b: int, time: Ints, kind: npt.NDArray[np.int64], part: Ints, offset: Ints) -> bool:
    if time[a] != time[b]:
        return bool(time[a] < time[b])
    if kind[a] != kind[b]:
        return bool(kind[a] < kind[b])
    if part[a] != part[b]:
        return bool(part[a] < part[b])
    return bool(offset[a] < offset[b])


@kernel
def _merge(  # noqa: C901 - one loop, kept whole for the compiler
    time: Ints,
    kind: Ints,
    source: Ints,
    part: Ints,
    offset: Ints,
    held: int,
    marks: Ints,
    idle: npt.NDArray[np.uint8],
    frontier: Ints,
    order: Ints,
    late: npt.NDArray[np.uint8],
) -> int:
    """Fold the rows into queues; write the released rows' indices to `order`; return how many.

    The first `held` rows were taken in earlier and wait in their queues. `time` is raised in place where a
    source runs backwards or a row is late. `frontier` holds [released up to, newest time seen or told].
    """
    sources = marks.size
    head = np.full(sources, -1, np.int64)
    tail = np.full(sources, -1, np.int64)
    behind = np.full(time.size, -1, np.int64)
    out = 0
    for row in range(time.size):
        s = source[row]
        if row >= held:
            idle[s] = 1 if kind[row] == IDLE else 0
            if kind[row] >= PROGRESS:
                # An idle source has come somewhere too: whether it said so before must leave no trace.
                marks[s] = max(marks[s], time[row])
                # A source that has come somewhere without a row must not hold up those who wait for it.
                frontier[1] = max(frontier[1], time[row])
            elif time[row] < frontier[0]:
                late[row] = 1
                marks[s] = max(marks[s], time[row])
                time[row] = frontier[0]
                order[out] = row
                out += 1
                continue
            else:
                time[row] = max(time[row], marks[s])
                marks[s] = time[row]
        if kind[row] < PROGRESS:
            if head[s] < 0:
                head[s] = row
            else:
                behind[tail[s]] = row
            tail[s] = row
            if time[row] > frontier[1]:
                frontier[1] = time[row]
        if row < held - 1:
            continue
        low = _low(marks, idle)
        while True:
            best = -1
            for q in range(sources):
                h = head[q]
                if h >= 0 and time[h] < low and (best < 0 or _before(h, best, time, kind, part, offset)):
                    best = h
            if best < 0:
                break
            order[out] = best
            out += 1
            head[source[best]] = behind[best]
        reached = min(low, frontier[1])
        if reached > frontier[0]:
            frontier[0] = reached
    return out


class Merge:
    """The queues and marks of one unit; `sources` are numbered from 0 and none is idle at first."""

    def __init__(self, sources: int) -> None:
        self.marks: Ints = np.full(sources, NEVER, np.int64)
        self.idle: npt.NDArray[np.uint8] = np.zeros(sources, np.uint8)
        self._frontier: Ints = np.full(2, NEVER, np.int64)
        self.waiting: Batch | None = None
        self.late_total = 0

    @property
    def frontier(self) -> int:
        """Order time up to which everything was released, in milliseconds; later rows are never older."""
        return int(self._frontier[0])

    @property
    def all_idle(self) -> bool:
        """Whether nothing more is expected from any source."""
        return bool(self.idle.all())

    @property
    def frontiers(self) -> Ints:
        """Released up to, and the newest time seen or told: the merge's state besides marks and held rows."""
        return self._frontier

    def restore(self, marks: Ints, idle: npt.NDArray[np.uint8], frontiers: Ints) -> None:
        """Take up saved marks; the held rows are set by the caller."""
        self.marks, self.idle, self._frontier = marks.copy(), idle.copy(), frontiers.copy()

    def push(self, rows: Batch) -> Batch:
        """Take rows in log order; return those released, in merged order, without progress rows.

        Needs int64 columns `order_time`, `kind` (LABEL, EVENT, PROGRESS or IDLE), `queue` (the source's
        number), `source_partition`, `source_offset` and a bool column `late`. Released rows carry the order
        time at which they stand in the merged order, and `late` where they came behind their place.
        """
        held = 0 if self.waiting is None else self.waiting.rows
        whole = rows if self.waiting is None else Batch.concat([self.waiting, rows])
        time = whole["order_time"].array.astype(np.int64)
        kind = whole["kind"].array
        order = np.empty(whole.rows, np.int64)
        late = np.zeros(whole.rows, np.uint8)
        count = _merge(
            time,
            kind,
            whole["queue"].array,
            whole["source_partition"].array,
            whole["source_offset"].array,
            held,
            self.marks,
            self.idle,
            self._frontier,
            order,
            late,
        )
        released = order[:count]
        rest = kind < PROGRESS
        rest[released] = False
        self.late_total += int(late.sum())
        changed = whole.having(order_time=time, late=whole["late"].array | late.view(np.bool_))
        self.waiting = changed.take(rest) if rest.any() else None
        return changed.take(released)
