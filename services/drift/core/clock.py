"""Which outcomes were known at a time: the ledger's order time by sequence."""

from typing import Any

import numpy as np

from services.drift.core.kernels import Ints

MEMORY = 100_000
"""Newest rows whose times are known: so far the ledger may be read ahead of a profile that it dates."""


class Clock:
    """The latest order time (milliseconds) up to each of the ledger's newest rows: it never goes back.

    It may begin behind a row `sequence` whose time is not known.

    >>> clock = Clock()
    >>> clock.step(np.array([0, 1, 2]), np.array([10, 30, 20]))
    >>> clock.newest(29), clock.newest(30), clock.passed(29), clock.passed(30)
    (0, 2, True, False)
    """

    def __init__(self, sequence: int = -1) -> None:
        self._sequences: Ints = np.array([sequence] if sequence >= 0 else [], np.int64)
        self._latest: Ints = np.zeros_like(self._sequences)

    def step(self, sequences: Ints, order_times: Ints) -> None:
        """Take the ledger's next rows."""
        before = len(self._latest)
        latest = np.maximum.accumulate(np.concatenate([self._latest[-1:], order_times]))[min(1, before) :]
        self._sequences = np.concatenate([self._sequences, sequences])[-MEMORY:]
        self._latest = np.concatenate([self._latest, latest])[-MEMORY:]

    def passed(self, order_time: int) -> bool:
        """Whether a row beyond that time is known: then no row to come can lie up to it."""
        return bool(len(self._latest)) and int(self._latest[-1]) > order_time

    def newest(self, order_time: int) -> int:
        """The sequence of the newest row up to that time; -1 for none, of a time beyond memory the row before."""
        at = int(np.searchsorted(self._latest, order_time, side="right"))
        if at:
            return int(self._sequences[at - 1])
        return int(self._sequences[0]) - 1 if len(self._sequences) else -1

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"sequences": self._sequences, "latest": self._latest}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._sequences, self._latest = state["sequences"], state["latest"]
