"""Detectors that are no kernel of errors: river's ADWIN, rebuilt from its rows, and KSWIN on blocks of losses."""

from typing import Any

import numpy as np
from river.drift import ADWIN

from services.drift.core.kernels import Bits, Floats
from shared.kernels import kernel

ADWIN_ROWS = 8_192
"""Errors that are kept to rebuild ADWIN from; when they are full it goes on with the newer half."""
BLOCK = 10
"""Losses that KSWIN sees as one mean: sampling that loses no row."""
KS_WINDOW, KS_RECENT = 100, 30
"""River's defaults: blocks in the sliding window, and the newest of them."""


class Adwin:
    """River's ADWIN (Bifet 2007) on errors, one-sided: a cut where the rate fell is good news and no alarm.

    Its state is the errors since its start, at most `ADWIN_ROWS`: folding them again gives the same detector.

    >>> adwin = Adwin(delta=0.002)
    >>> errors = np.repeat(np.array([0, 1, 0], np.uint8), 200)
    >>> adwin.step(errors, 0), adwin.step(errors, 224)
    (223, -1)
    """

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self._rows: list[int] = []
        self._detector = ADWIN(delta=self._delta)  # type: ignore[no-untyped-call]

    def step(self, errors: Bits, start: int) -> int:
        """Fold errors from `start` on; the index of the row that raised an alarm, or -1."""
        for row, error in enumerate(errors[start:].tolist(), start):
            self._rows.append(error)
            self._detector.update(error)  # type: ignore[no-untyped-call]
            if self._detector.drift_detected:
                rose = self._detector.estimation > sum(self._rows) / len(self._rows)
                self.reset()
                if rose:
                    return row
            elif len(self._rows) >= ADWIN_ROWS:
                self._restart(self._rows[ADWIN_ROWS // 2 :])
        return -1

    def _restart(self, rows: list[int]) -> None:
        self.reset()
        for error in rows:
            self._detector.update(error)  # type: ignore[no-untyped-call]
        self._rows = rows

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"rows": np.array(self._rows, np.uint8)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._restart(state["rows"].tolist())


@kernel
def rise(window: Floats, recent: int) -> float:
    """recent * D^2 of the Kolmogorov-Smirnov distance D of the newest values to as many older ones, evenly drawn.

    0 unless the newest are the larger ones; 2 exp(-recent * D^2) is about the two-sided test's p-value.
    """
    older = window.shape[0] - recent
    new = np.sort(window[older:])
    old = np.empty(recent)
    for i in range(recent):
        old[i] = window[(i * older) // recent]
    if new.mean() <= old.mean():
        return 0.0
    old = np.sort(old)
    i, j, furthest = 0, 0, 0
    while i < recent and j < recent:
        value = min(old[i], new[j])
        while i < recent and old[i] <= value:
            i += 1
        while j < recent and new[j] <= value:
            j += 1
        furthest = max(furthest, abs(i - j))
    return furthest * furthest / recent


class Kswin:
    """KSWIN (Raab 2020), sampled: each value is the mean of ten losses, the older ones are drawn evenly.

    One-sided; a constant stream has distance 0. Its state is the window and the open block.

    >>> kswin = Kswin(threshold=11.0)
    >>> noise = np.random.default_rng(1).random(4000)
    >>> kswin.step(noise, 0), kswin.step(noise + 1, 0)
    (-1, 189)
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.statistic = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self._window: Floats = np.empty(0)
        self._block: list[float] = []

    def step(self, losses: Floats, start: int) -> int:
        """Fold losses from `start` on; the index of the row that raised an alarm, or -1."""
        for row, loss in enumerate(losses[start:].tolist(), start):
            self._block.append(loss)
            if len(self._block) < BLOCK:
                continue
            mean = sum(self._block) / BLOCK
            self._window = np.append(self._window[-(KS_WINDOW - 1) :], mean)
            self._block = []
            if len(self._window) == KS_WINDOW:
                self.statistic = rise(self._window, KS_RECENT)
                if self.statistic > self.threshold:
                    return row
        return -1

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"window": self._window, "block": np.array(self._block, np.float64)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._window, self._block = state["window"], state["block"].tolist()
