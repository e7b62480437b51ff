"""Which rows a model learns from, and how much each counts."""

from typing import Literal

import numpy as np

from services.retrainer.core.kinds.rows import TrainingRows

Policy = Literal["last", "since_drift", "weighted"]
# Fewer rows behind a drift teach nothing yet.
MIN_WINDOW = 100
# Weights halve over this share of `window_rows`.
HALF_LIFE = 0.1


def window(policy: str, head: TrainingRows, window_rows: int, drift_since: int | None) -> TrainingRows | None:
    """The rows of `head` by the policy, or None where it has nothing of its own to offer.

    `last`: the newest `window_rows`. `since_drift`: those of them with a sequence from `drift_since` on.
    `weighted`: the newest, each counting half as much a tenth of `window_rows` later.
    """
    last = head.part(slice(max(0, len(head) - window_rows), None))
    if policy == "last":
        return last
    if policy == "since_drift":
        if drift_since is None:
            return None
        begin = int(np.searchsorted(last.sequences, drift_since))
        return last.part(slice(begin, None)) if 0 < begin <= len(last) - MIN_WINDOW else None
    if policy == "weighted":
        half_life = max(1.0, HALF_LIFE * window_rows)
        if len(last) < half_life:
            return None
        age = np.arange(len(last) - 1, -1, -1)
        return last.part(slice(None), 0.5 ** (age / half_life))
    raise ValueError(f"no window policy {policy!r}")
