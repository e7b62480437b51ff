"""Each kind of model fitted once on made-up rows: what is imported or compiled at first use is there then."""

import numpy as np

from services.retrainer.core.kinds.choose import candidates
from services.retrainer.core.kinds.rows import Candidate, TrainingRows
from shared.models.building import Features
from shared.models.manifest import Linear

ROWS = 80


def rehearse() -> list[Candidate]:
    """One candidate a kind, of no use to anybody; takes seconds in a process that has just started."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(ROWS, 2))
    classes = (matrix[:, 0] + random.normal(size=ROWS) > 0).astype(np.int64)
    order = np.arange(ROWS, dtype=np.int64)
    features = Features(("a", "b"), "0" * 64)
    return candidates(
        TrainingRows(features, matrix, classes, 2, None, order, order, {}),
        kinds=("torch", "gbt", "online"),
        windows=("last",),
        window_rows=ROWS,
        validation=0.2,
        drift_since=None,
        architecture=Linear(inputs=2),
        seed=0,
    )
