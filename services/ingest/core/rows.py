"""Rows of one topic between intake and output, and the queue in which they wait for the other topic."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from services.ingest.core.reasons import OK
from shared.codec.batch import Batch, Bytes, Column, Ints, Mask, Strings
from shared.codec.hashing import Hashes
from shared.kernels import kernel
from shared.runtime.polled import Polled

Codes = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Good:
    """The rows that intake found right, in offset order: decoded record, identity and payload hash."""

    record: Batch
    first: Hashes
    second: Hashes
    payload: Hashes

    def cut(self, begin: int, end: int) -> "Good":
        """Rows `begin` to `end`, as views."""
        return Good(
            Batch({n: _cut_column(c, begin, end) for n, c in self.record.columns.items()}, end - begin),
            self.first[begin:end],
            self.second[begin:end],
            self.payload[begin:end],
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one topic in offset order: what was read, a code each (OK or why not), their order times.

    `order` is the source's running order time: it does not decrease, and only good rows move it.
    """

    polled: Polled
    codes: Codes
    order: Ints
    good: Good

    def __len__(self) -> int:
        return int(self.codes.size)

    def cut(self, begin: int, end: int) -> "Chunk":
        """Rows `begin` to `end`, as views."""
        from_good = int(np.count_nonzero(self.codes[:begin] == OK))
        goods = int(np.count_nonzero(self.codes[begin:end] == OK))
        return Chunk(
            cut_polled(self.polled, begin, end),
            self.codes[begin:end],
            self.order[begin:end],
            self.good.cut(from_good, from_good + goods),
        )


@dataclass(slots=True)
class Queue:
    """Chunks of one topic, first in, first out."""

    chunks: deque[Chunk] = field(default_factory=deque)
    rows: int = 0

    def push(self, chunk: Chunk) -> None:
        """Put rows at the end."""
        if len(chunk):
            self.chunks.append(chunk)
            self.rows += len(chunk)

    def pop(self, count: int) -> list[Chunk]:
        """Take the first `count` rows."""
        taken = []
        self.rows -= count
        while count:
            head = self.chunks.popleft()
            if len(head) > count:
                self.chunks.appendleft(head.cut(count, len(head)))
                head = head.cut(0, count)
            count -= len(head)
            taken.append(head)
        return taken

    def first_offset(self) -> int | None:
        """Offset of the row at the head; None when nothing waits."""
        return int(self.chunks[0].polled.offsets[0]) if self.chunks else None


def cut_strings(rows: Strings, begin: int, end: int) -> Strings:
    """Rows `begin` to `end`, as views."""
    return Strings(rows.data, rows.starts[begin:end], rows.lengths[begin:end])


def cut_polled(polled: Polled, begin: int, end: int) -> Polled:
    """Rows `begin` to `end`, as views."""
    return Polled(
        polled.topic,
        polled.partition,
        cut_strings(polled.keys, begin, end),
        polled.key_null[begin:end],
        cut_strings(polled.values, begin, end),
        polled.value_null[begin:end],
        polled.offsets[begin:end],
        polled.timestamps[begin:end],
        None if polled.headers is None else polled.headers[begin:end],
    )


def _cut_column(column: Column, begin: int, end: int) -> Column:
    values = column.values
    cut = cut_strings(values, begin, end) if isinstance(values, Strings) else values[begin:end]
    return Column(cut, None if column.valid is None else column.valid[begin:end])


@kernel
def _equal(
    a: Bytes, a_starts: Ints, a_lengths: Ints, b: Bytes, b_starts: Ints, b_lengths: Ints, out: Any
) -> None:
    for row in range(a_starts.size):
        same = a_lengths[row] == b_lengths[row]
        if same:
            for i in range(a_lengths[row]):
                if a[a_starts[row] + i] != b[b_starts[row] + i]:
                    same = False
                    break
        out[row] = same


def equal_rows(a: Strings, b: Strings) -> Mask:
    """Where two columns of texts hold the same bytes."""
    out = np.empty(len(a), np.bool_)
    _equal(*a.plain(), *b.plain(), out)
    return out


def join(parts: list[Strings]) -> Strings:
    """All rows of all parts, in order, without packing each: one copy of the buffers."""
    if len(parts) == 1:
        return parts[0]
    bases = np.cumsum([0, *(part.data.size for part in parts)])
    return Strings(
        np.concatenate([part.data for part in parts]) if parts else np.empty(0, np.uint8),
        np.concatenate([p.starts + base for p, base in zip(parts, bases[:-1], strict=True)])
        if parts
        else np.empty(0, np.int64),
        np.concatenate([part.lengths for part in parts]) if parts else np.empty(0, np.int64),
    )
