"""Which ids were seen within the horizon: an open-addressing table of 128-bit identities, in order time.

An entry counts while `row's time - entry's time <= horizon`; that is a property of the two rows alone, so
neither batching nor the table's housekeeping can be seen from outside. Times never run backwards, hence what
has once expired stays so and is dropped whenever the table is built anew.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Bytes, Ints, Strings, frozen
from shared.codec.hashing import Hashes, xxh64, xxh64_rows
from shared.kernels import kernel

NEW, SAME, CONFLICT = 0, 1, 2
"""Verdicts: not seen; seen with the same payload; seen with another one."""

Verdicts = npt.NDArray[np.uint8]
_Table = npt.NDArray[np.uint64]

_LEAST_SLOTS = 1_024
# Columns of the table; a slot whose time is 0 is free, since times are positive.
_FIRST, _SECOND, _PAYLOAD, _TIME = 0, 1, 2, 3
_SEEDS = (0x6D696C6C72616365, 0x64656475702D3031)


@kernel
def _identify(
    data: Bytes,
    starts: Ints,
    lengths: Ints,
    scope: Bytes,
    scope_starts: Ints,
    scope_lengths: Ints,
    seed: Any,
    out: Hashes,
) -> None:
    for row in range(starts.size):
        own = seed
        if scope_lengths[row] > 0:
            own = xxh64(scope, scope_starts[row], scope_lengths[row], seed)
        out[row] = xxh64(data, starts[row], lengths[row], own)


@kernel
def _distinguish(data: Bytes, starts: Ints, lengths: Ints, out: Hashes) -> None:
    for row in range(starts.size):
        out[row] = xxh64(data, starts[row], lengths[row], out[row])


def identify(
    ids: Strings, sources: Strings | None = None, contents: Strings | None = None
) -> tuple[Hashes, Hashes]:
    """128-bit identity of each row's (source, id), as two halves; no source is the same as an empty one.

    With `contents` the identity is that of (source, id, content): rows of one id and other content are others.
    """
    scopes = Strings.repeated(b"", len(ids)) if sources is None else sources
    halves = []
    for seed in _SEEDS:
        out = np.empty(len(ids), np.uint64)
        _identify(*ids.plain(), *scopes.plain(), np.uint64(seed), out)
        if contents is not None:
            _distinguish(*contents.plain(), out)
        halves.append(out)
    return halves[0], halves[1]


@kernel
def _slot(table: _Table, first: Any, second: Any) -> Any:
    """Where the identity stands, or the free slot where it would."""
    mask = np.uint64(table.shape[0] - 1)
    at = first & mask
    while table[at, _TIME] != 0 and (table[at, _FIRST] != first or table[at, _SECOND] != second):
        at = (at + np.uint64(1)) & mask
    return at


@kernel
def _fold(
    table: _Table,
    first: Hashes,
    second: Hashes,
    payload: Hashes,
    time: Ints,
    horizon: int,
    count: int,
    row: int,
    out: Verdicts,
) -> tuple[int, int]:
    """Go on at `row` until the rows end or the table is half full; the row and the count come back."""
    while row < first.size and 2 * count < table.shape[0]:
        at = _slot(table, first[row], second[row])
        before = np.int64(table[at, _TIME])
        if before != 0 and time[row] - before <= horizon:
            out[row] = SAME if table[at, _PAYLOAD] == payload[row] else CONFLICT
        else:
            if before == 0:
                count += 1
            table[at, _FIRST] = first[row]
            table[at, _SECOND] = second[row]
            table[at, _PAYLOAD] = payload[row]
            table[at, _TIME] = np.uint64(time[row])
            out[row] = NEW
        row += 1
    return row, count


@kernel
def _fill(entries: _Table, table: _Table) -> None:
    for row in range(entries.shape[0]):
        at = _slot(table, entries[row, _FIRST], entries[row, _SECOND])
        for column in range(4):
            table[at, column] = entries[row, column]


@kernel
def _collect(table: _Table, newest: int, horizon: int, out: _Table) -> int:
    """Copy the entries that still count to `out`, in the table's order; how many there are."""
    found = 0
    for row in range(table.shape[0]):
        time = np.int64(table[row, _TIME])
        if time != 0 and newest - time <= horizon:
            for column in range(4):
                out[found, column] = table[row, column]
            found += 1
    return found


class Dedup:
    """The identities seen within `horizon_ms` of order time; the first of several always wins.

    >>> seen = Dedup(horizon_ms=100)
    >>> ids = identify(Strings.of([b"a", b"a", b"a", b"a"]))
    >>> seen.fold(*ids, np.array([7, 7, 8, 7], np.uint64), np.array([1_000, 1_100, 1_100, 1_101])).tolist()
    [0, 1, 2, 0]
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon = horizon_ms
        self._table: _Table = np.zeros((_LEAST_SLOTS, 4), np.uint64)
        self._count = 0
        self._newest = 0

    def __len__(self) -> int:
        """Entries that still count at the newest time folded."""
        return int(self._live().shape[0])

    @property
    def slots(self) -> int:
        """Size of the table: at most eight times the live entries, but for the smallest one."""
        return int(self._table.shape[0])

    def fold(self, first: Hashes, second: Hashes, payload: Hashes, time: Ints) -> Verdicts:
        """Verdict on each row, in order; `time` is positive, does not decrease and is in milliseconds."""
        out = np.empty(first.size, np.uint8)
        one, two = frozen(first, np.uint64), frozen(second, np.uint64)
        hashed, times = frozen(payload, np.uint64), frozen(time, np.int64)
        row = 0
        while True:
            row, self._count = _fold(
                self._table, one, two, hashed, times, self._horizon, self._count, row, out
            )
            self._newest = max(self._newest, int(times[row - 1])) if row else self._newest
            if row == first.size:
                return out
            self._rebuild(self._live())

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The live entries in no order of meaning: sorting a million would hold the door for half a second."""
        return {"entries": self._live(), "newest": np.array([self._newest], np.int64)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Hold what `snapshot` gave; ValueError when it is not one."""
        entries = arrays["entries"]
        if entries.dtype != np.uint64 or entries.ndim != 2 or entries.shape[1] != 4:
            raise ValueError("a snapshot of seen ids is an n by 4 array of uint64")
        self._newest = int(arrays["newest"][0])
        self._rebuild(entries)

    def digest(self) -> str:
        """sha256 over the live entries as a set (two sums of their hashes) and the newest time."""
        live = self._live()
        # The hash is over a row's bytes, whatever they mean.
        sums = [int(xxh64_rows(live.view(np.float64), seed).sum()) for seed in _SEEDS]
        return hashlib.sha256(f"{live.shape[0]}:{sums[0]}:{sums[1]}:{self._newest}".encode()).hexdigest()

    def _live(self) -> _Table:
        out = np.empty((self._count, 4), np.uint64)
        return out[: _collect(self._table, self._newest, self._horizon, out)]

    def _rebuild(self, entries: _Table) -> None:
        """A table of exactly these entries, at most a quarter full."""
        slots = max(_LEAST_SLOTS, 1 << (4 * entries.shape[0] - 1).bit_length())
        table = np.zeros((slots, 4), np.uint64)
        _fill(np.ascontiguousarray(entries), table)
        self._table, self._count = table, int(entries.shape[0])
