"""Whole numbers to dense slots, a whole column in one call: offsets on events.v1 to rows of the book."""

from typing import Any

import numpy as np

from shared.codec.batch import Ints
from shared.kernels import kernel

_LEAST = 1_024
_MIX = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _place(table: Ints, number: int) -> Any:
    """Where `number` stands in the table, or the free row where it would."""
    mask = np.uint64(table.shape[0] - 1)
    mixed = np.uint64(number) * _MIX
    at = (mixed ^ (mixed >> np.uint64(32))) & mask
    while table[at, 0] != 0 and table[at, 0] != number + 1:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@kernel
def _slots(table: Ints, numbers: Ints, used: int, out: Ints) -> int:
    for row in range(numbers.size):
        at = _place(table, numbers[row])
        if table[at, 0] == 0:
            table[at, 0] = numbers[row] + 1
            table[at, 1] = used
            used += 1
        out[row] = table[at, 1]
    return used


class Index:
    """Numbers whole numbers, none of them negative, by the order in which they first appear.

    >>> index = Index()
    >>> index.slots(np.array([70, 7, 70])).tolist(), len(index)
    ([0, 1, 0], 2)
    """

    def __init__(self) -> None:
        self._table = np.zeros((_LEAST, 2), np.int64)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def slots(self, numbers: Ints) -> Ints:
        """The slot of each number; new ones get the next."""
        out = np.empty(numbers.size, np.int64)
        if 2 * (self._used + numbers.size) > self._table.shape[0]:
            held = self._table[self._table[:, 0] != 0]
            self._table = np.zeros((1 << (4 * (self._used + numbers.size)).bit_length(), 2), np.int64)
            _slots(self._table, held[np.argsort(held[:, 1]), 0] - 1, 0, np.empty(held.shape[0], np.int64))
        self._used = _slots(self._table, np.ascontiguousarray(numbers, np.int64), self._used, out)
        return out
