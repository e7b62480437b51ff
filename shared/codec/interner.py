"""Byte strings to dense numbers, a whole column in one call: the row numbers of every per-entity table."""

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Bytes, Ints, Strings
from shared.codec.hashing import xxh64
from shared.codec.words import copy, load64
from shared.kernels import kernel

_LEAST_SLOTS = 64
_ABSENT = -1
# A slot holds the id + 1 in its low half, 0 when free, and the hash's high half as a tag beside it.
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(0xFFFFFFFF00000000)
_ONE = np.uint64(1)
_MOST_KEYS = 2**32 - 2

_Slots = npt.NDArray[np.uint64]


@kernel
def _equal(a: Bytes, a_begin: int, b: Bytes, b_begin: int, length: int) -> bool:
    i = 0
    while i + 8 <= length:
        if load64(a, a_begin + i) != load64(b, b_begin + i):
            return False
        i += 8
    while i < length:
        if a[np.uint64(a_begin + i)] != b[np.uint64(b_begin + i)]:
            return False
        i += 1
    return True


@kernel
def _find(
    data: Bytes, begin: int, length: int, seed: Any, slots: _Slots, keys: Bytes, starts: Ints
) -> tuple[Any, Any, Any]:
    """The key's id or -1, the slot where the search ended, and what to write there (without the id)."""
    mask = np.uint64(slots.size - 1)
    hashed = xxh64(data, begin, length, seed)
    tag = hashed & _HIGH
    at = hashed & mask
    while True:
        slot = slots[at]
        if slot == np.uint64(0):
            return _ABSENT, at, tag
        if (slot & _HIGH) == tag:
            found = np.int64(slot & _LOW) - 1
            if starts[found + 1] - starts[found] == length and _equal(
                data, begin, keys, starts[found], length
            ):
                return found, at, tag
        at = (at + _ONE) & mask


@kernel
def _lookup(
    data: Bytes,
    begins: Ints,
    lengths: Ints,
    seed: Any,
    slots: _Slots,
    keys: Bytes,
    starts: Ints,
    out: Ints,
) -> None:
    for row in range(begins.size):
        found, _, _ = _find(data, begins[row], lengths[row], seed, slots, keys, starts)
        out[row] = found


@kernel
def _intern(
    data: Bytes,
    begins: Ints,
    lengths: Ints,
    seed: Any,
    slots: _Slots,
    keys: Bytes,
    starts: Ints,
    count: int,
    row: int,
    out: Ints,
) -> tuple[int, int]:
    """Go on at `row` until the rows end or the table must grow; the row and the key count come back."""
    while row < begins.size:
        length = lengths[row]
        found, at, tag = _find(data, begins[row], length, seed, slots, keys, starts)
        if found < 0:
            end = starts[count]
            if 2 * (count + 1) > slots.size or count + 2 > starts.size or end + length > keys.size:
                break
            copy(data, begins[row], length, keys, end)
            found = count
            count += 1
            starts[count] = end + length
            slots[at] = tag | np.uint64(count)
        out[row] = found
        row += 1
    return row, count


@kernel
def _fill(keys: Bytes, starts: Ints, count: int, seed: Any, slots: _Slots) -> int:
    """Enter the keys 0..count-1 into empty slots; the first key that stands twice comes back, or -1."""
    for key in range(count):
        length = starts[key + 1] - starts[key]
        found, at, tag = _find(keys, starts[key], length, seed, slots, keys, starts)
        if found >= 0:
            return key
        slots[at] = tag | np.uint64(key + 1)
    return -1


class Interner:
    """Numbers byte strings 0, 1, 2, … in the order in which they first appear; whole bytes are compared.

    The hash is seeded anew in each process, so nobody outside can choose keys that collide; ids and
    snapshots do not depend on it.

    >>> table = Interner()
    >>> table.intern(Strings.of([b"x", b"y", b"x"])).tolist()
    [0, 1, 0]
    >>> table.lookup(Strings.of([b"y", b"z"])).tolist(), table.key(1), len(table)
    ([1, -1], b'y', 2)
    """

    def __init__(self) -> None:
        self._seed = np.uint64(secrets.randbits(64))
        self._count = 0
        self._slots: _Slots = np.zeros(_LEAST_SLOTS, np.uint64)
        self._keys: Bytes = np.empty(_LEAST_SLOTS * 16, np.uint8)
        self._starts: Ints = np.zeros(_LEAST_SLOTS, np.int64)

    def __len__(self) -> int:
        return self._count

    def intern(self, rows: Strings) -> Ints:
        """Each row's id; keys not seen before get the next ids in order of appearance."""
        data, begins, lengths = rows.plain()
        out = np.empty(len(rows), np.int64)
        row = 0
        while True:
            row, self._count = _intern(
                data, begins, lengths, self._seed, *self._table(), self._count, row, out
            )
            if row == len(rows):
                return out
            self._grow(int(lengths[row]))

    def lookup(self, rows: Strings) -> Ints:
        """Each row's id, -1 where the key is not known."""
        out = np.empty(len(rows), np.int64)
        _lookup(*rows.plain(), self._seed, *self._table(), out)
        return out

    def key(self, number: int) -> bytes:
        """The bytes of one id; IndexError when there is no such id."""
        if not 0 <= number < self._count:
            raise IndexError(f"no key {number}: there are {self._count}")
        return self._keys[self._starts[number] : self._starts[number + 1]].tobytes()

    def keys(self) -> Strings:
        """All keys by id, as views into the table's append-only buffer: later keys leave them be."""
        starts = self._starts[: self._count + 1].copy()
        return Strings(self._keys, starts[:-1], np.diff(starts))

    def keep(self, ids: Ints) -> None:
        """Forget all keys but these, which become 0..n-1 in this order; ValueError if one stands twice."""
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self._count):
            raise IndexError(f"ids must be within 0..{self._count - 1}")
        self._replace(self.keys().take(ids).compact())

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The keys as two arrays: `data` (uint8, one behind the other) and `lengths` (int64)."""
        rows = self.keys().compact()
        return {"data": rows.data, "lengths": rows.lengths}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Hold exactly the keys of a `snapshot`; ValueError when it is not one."""
        data, lengths = arrays["data"], arrays["lengths"]
        if data.dtype != np.uint8 or lengths.dtype != np.int64 or data.ndim != 1 or lengths.ndim != 1:
            raise ValueError("an interner's snapshot has uint8 data and int64 lengths")
        if (lengths < 0).any() or int(lengths.sum()) != data.size:
            raise ValueError("an interner's snapshot has as many bytes as its lengths say")
        self._replace(Strings.packed(data, lengths))

    def _table(self) -> tuple[_Slots, Bytes, Ints]:
        return self._slots, self._keys, self._starts

    def _replace(self, rows: Strings) -> None:
        """Hold exactly these rows, which lie one behind the other from 0 on."""
        count = len(rows)
        size = int(rows.lengths.sum())
        keys = np.empty(max(_LEAST_SLOTS * 16, size), np.uint8)
        keys[:size] = rows.data[:size]
        starts = np.zeros(max(_LEAST_SLOTS, count + 1), np.int64)
        np.cumsum(rows.lengths, out=starts[1 : count + 1])
        slots = np.zeros(max(_LEAST_SLOTS, _power_of_two(2 * count + 2)), np.uint64)
        twice = int(_fill(keys, starts, count, self._seed, slots))
        if twice >= 0:
            raise ValueError(f"the key at {twice} stands twice")
        self._slots, self._keys, self._starts, self._count = slots, keys, starts, count

    def _grow(self, length: int) -> None:
        """Make room for at least one more key of `length` bytes, doubling what is too small."""
        if self._count >= _MOST_KEYS:
            raise OverflowError(f"an interner holds at most {_MOST_KEYS} keys")
        used = int(self._starts[self._count])
        if used + length > self._keys.size:
            keys = np.empty(max(2 * self._keys.size, used + length), np.uint8)
            keys[:used] = self._keys[:used]
            self._keys = keys
        if self._count + 2 > self._starts.size:
            starts = np.zeros(2 * self._starts.size, np.int64)
            starts[: self._count + 1] = self._starts[: self._count + 1]
            self._starts = starts
        if 2 * (self._count + 1) > self._slots.size:
            self._slots = np.zeros(2 * self._slots.size, np.uint64)
            _fill(self._keys, self._starts, self._count, self._seed, self._slots)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
