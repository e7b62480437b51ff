"""Between the rows of a dataset and the training code: which candidates there are, best first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from services.retrainer.challenger import Challenger, training_rows
from services.retrainer.core.kinds.choose import candidates, tail_of
from services.retrainer.core.kinds.rows import Candidate, Plan
from services.retrainer.core.ledger import LearningRows, wanted_rows
from shared.contracts.policies import RetrainPolicy
from shared.models.manifest import Artefact

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A candidate with its figures: `scores` float64[m] (two classes) or [m, classes] of the newest m rows, none
    of which it learnt from. `trained_until` is the sequence of the last row that it did learn from.
    """

    kind: str
    window: str
    rows: int
    trained_until: int
    artefact: Artefact
    scores: Floats
    figures: dict[str, float]


def fit(
    rows: LearningRows,
    challenger: Challenger,
    policy: RetrainPolicy,
    since: int,
    plan: Plan,
    metric: str,
    categorical: Mapping[int, int],
) -> list[Fitted]:
    """Every candidate that the policy asks for, the best on the validation rows first.

    `rows` are all of the dataset's; a window and the validation rows behind it are its newest. `categorical` are
    the features that hold codes, by place, with how many there are. Refused where nothing can be learnt.
    """
    newest = rows.last(wanted_rows(policy.window_rows, policy.validation))
    drift_since = since if since >= 0 else None
    taught = replace(training_rows(newest, challenger), categorical=categorical)
    split = len(taught) - tail_of(taught, policy.window_rows, policy.validation, drift_since)
    learner = None
    if "online" in policy.kinds and split > 0:
        begin = int(taught.sequences[split])
        learner = challenger.before(begin)
        learner.learn(training_rows(rows.pick(np.flatnonzero(rows.sequences < begin)), challenger))
    found = candidates(
        taught,
        kinds=policy.kinds,
        windows=policy.windows,
        window_rows=policy.window_rows,
        validation=policy.validation,
        drift_since=drift_since,
        architecture=plan.architecture,
        seed=plan.seed,
        threads=plan.threads,
        device=plan.device,
        balance=plan.balance,
        online=learner,
        metric=metric,
    )
    return [_fitted(each) for each in found]


def _fitted(each: Candidate) -> Fitted:
    dataset = each.artefact.manifest.dataset
    rows, last = dataset["rows"], dataset["last_sequence"]
    if not isinstance(rows, int) or not isinstance(last, int):
        raise TypeError("a candidate says how many rows it learnt from, and up to which sequence")
    return Fitted(each.kind, each.window, rows, last, each.artefact, each.outputs, each.figures)
