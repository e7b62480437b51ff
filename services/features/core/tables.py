"""Open-addressing tables of int64 rows for kernels: three key words and one value word, 0 in the first for free.

Linear probing; a removal shifts back what follows, so that there are no tombstones. The caller keeps a table at
most half full and its capacity a power of two.
"""

import numpy as np

from shared.codec.batch import Ints
from shared.kernels import kernel

ROW = 4
VALUE = 3
LEAST = 64

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xC2B2AE3D27D4EB4F)
_C = np.uint64(0x165667B19E3779F9)


@kernel
def _home(table: Ints, seed: int, a: int, b: int, c: int) -> int:
    h = (np.uint64(seed) ^ np.uint64(a)) * _A
    h = ((h ^ (h >> np.uint64(29))) + np.uint64(b)) * _B
    h = ((h ^ (h >> np.uint64(32))) + np.uint64(c)) * _C
    h ^= h >> np.uint64(29)
    slot: int = np.int64(h & np.uint64(table.shape[0] - 1))  # type: ignore[assignment]
    return slot


@kernel
def find(table: Ints, seed: int, a: int, b: int, c: int) -> int:
    """Where the key stands, or the free place where it would, as ~place."""
    mask = table.shape[0] - 1
    at = _home(table, seed, a, b, c)
    while table[at, 0] != 0:
        if table[at, 0] == a and table[at, 1] == b and table[at, 2] == c:
            return at
        at = (at + 1) & mask
    return ~at


@kernel
def put(table: Ints, at: int, a: int, b: int, c: int, value: int) -> None:
    """Write a key at a free place that `find` gave."""
    table[at, 0] = a
    table[at, 1] = b
    table[at, 2] = c
    table[at, VALUE] = value


@kernel
def remove(table: Ints, seed: int, at: int) -> None:
    """Free a place, and close the gap in the probes that ran over it."""
    mask = table.shape[0] - 1
    hole = at
    at = (at + 1) & mask
    while table[at, 0] != 0:
        home = _home(table, seed, table[at, 0], table[at, 1], table[at, 2])
        if ((at - home) & mask) >= ((at - hole) & mask):
            table[hole] = table[at]
            hole = at
        at = (at + 1) & mask
    table[hole, 0] = 0


@kernel
def rehash(old: Ints, seed: int, new: Ints) -> None:
    """Enter all rows of one table into an empty one."""
    for row in range(old.shape[0]):
        if old[row, 0] != 0:
            at = ~find(new, seed, old[row, 0], old[row, 1], old[row, 2])
            new[at] = old[row]


def grown(table: Ints, seed: int, entries: int) -> Ints:
    """A table with the same rows and room for `entries`."""
    new = np.zeros((max(LEAST, 1 << (2 * entries - 1).bit_length()), ROW), np.int64)
    rehash(table, seed, new)
    return new
