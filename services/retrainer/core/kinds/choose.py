"""One retraining: every kind on every window, judged on the newest rows, the best first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from services.retrainer.core.kinds.boosted import fit_trees
from services.retrainer.core.kinds.networks import fit_linear, fit_network
from services.retrainer.core.kinds.online import OnlineLearner
from services.retrainer.core.kinds.ranking import ranked
from services.retrainer.core.kinds.rows import Candidate, Fitted, Floats, Plan, TrainingRows, measured
from services.retrainer.core.kinds.windows import window
from shared.errors import Refused
from shared.models.building import Features, Provenance, golden_rows
from shared.models.manifest import Artefact, Linear, Mlp

MIN_ROWS = 50
# A tail of so many rows judges well enough, if so many of them are outside the most common class.
JUDGING_ROWS = 500
JUDGING_OTHERS = 100
# Behind a drift at least so many rows teach, and so many judge.
MIN_SIDE = 100


def tail_of(rows: TrainingRows, window_rows: int, validation: float, drift_since: int | None = None) -> int:
    """How many of the newest rows judge; those before them teach.

    The share `validation` of what a window can hold, but no more than it takes to judge, since every row held
    back makes a model older: JUDGING_ROWS with JUDGING_OTHERS among them that are not of the most common
    class. Where a drift began at `drift_since`, two thirds of the rows since then teach, or else no window
    could learn what came with it.
    """
    tail = tail_rows(len(rows), window_rows, validation)
    others = np.cumsum((rows.classes != np.bincount(rows.classes, minlength=1).argmax())[::-1])
    tail = min(tail, max(JUDGING_ROWS, int(np.searchsorted(others, JUDGING_OTHERS)) + 1))
    since = 0 if drift_since is None else len(rows) - int(np.searchsorted(rows.sequences, drift_since))
    if 2 * MIN_SIDE <= since < len(rows):
        tail = min(tail, max(MIN_SIDE, since // 3))
    return tail


def tail_rows(rows: int, window_rows: int, validation: float) -> int:
    """At most so many rows judge: the share `validation` of the rows that a window can hold."""
    return max(1, int(min(rows, window_rows) * validation))


def candidates(
    rows: TrainingRows,
    *,
    kinds: Sequence[str],
    windows: Sequence[str],
    window_rows: int,
    validation: float,
    drift_since: int | None,
    architecture: Linear | Mlp,
    seed: int,
    threads: int = 1,
    online: OnlineLearner | None = None,
    metric: str = "log_loss",
    device: str = "cpu",
    balance: bool = False,
) -> list[Candidate]:
    """Models trained on the rows before the validation tail, the best on the tail first.

    No model has seen a row of the tail: what is proposed is what was judged. `online` is the permanent
    challenger; it must not have learnt a row of the tail, and learns those before it here. Without it a new
    one learns from the first row. Refused, with the reason, when no kind can learn from these rows.
    """
    rows.check()
    if len(rows) < MIN_ROWS:
        raise Refused(f"{len(rows)} labelled rows; training needs at least {MIN_ROWS}: wait for more labels")
    split = len(rows) - tail_of(rows, window_rows, validation, drift_since)
    head, tail = rows.part(slice(None, split)), rows.part(slice(split, None))
    plan = Plan(architecture, seed, threads, device, balance)
    found: list[Candidate] = []
    refused: list[Refused] = []
    for kind, name, part in _attempts(kinds, windows, head, window_rows, drift_since):
        try:
            fitted = _fit(kind, part, plan, online)
        except Refused as reason:
            refused.append(reason)
            continue
        found.append(_candidate(kind, name, fitted, part, tail))
    if not found:
        raise refused[0] if refused else Refused("no kind of model is declared that could be trained")
    return ranked(found, tail.targets, metric, seed)


def _attempts(
    kinds: Sequence[str],
    windows: Sequence[str],
    head: TrainingRows,
    window_rows: int,
    drift_since: int | None,
) -> Iterator[tuple[str, str, TrainingRows]]:
    """Kind, window and rows, in the declared order; the online learner forgets in its own way."""
    for name in windows:
        part = window(name, head, window_rows, drift_since)
        if part is None:
            continue
        for kind in kinds:
            if kind == "torch":
                yield "linear", name, part
            if kind != "online":
                yield kind, name, part
    if "online" in kinds:
        yield "online", "all", head


def _fit(kind: str, rows: TrainingRows, plan: Plan, online: OnlineLearner | None) -> Fitted:
    if kind == "torch":
        return fit_network(rows, plan)
    if kind == "linear":
        return fit_linear(rows, plan)
    if kind == "gbt":
        return fit_trees(rows, plan)
    if kind == "online":
        return _Online(_learnt(rows, online))
    raise ValueError(f"no kind {kind!r}")


def _learnt(head: TrainingRows, online: OnlineLearner | None) -> OnlineLearner:
    learner = OnlineLearner(head.features, head.class_count) if online is None else online
    if learner.sequence > int(head.sequences[-1]):
        raise ValueError("the online learner has learnt rows of the validation tail")
    learner.learn(head)
    return learner


@dataclass(frozen=True, slots=True)
class _Online:
    """The learner as one of the fitted."""

    learner: OnlineLearner

    def outputs(self, matrix: Floats) -> Floats:
        return self.learner.outputs(matrix)

    def describe(self) -> dict[str, JsonValue]:
        return self.learner.describe()

    def artefact(self, features: Features, samples: Floats, provenance: Provenance) -> Artefact:
        if features != self.learner.features:
            raise ValueError("the online learner has other features")
        return self.learner.artefact(samples, provenance)


def _candidate(kind: str, name: str, fitted: Fitted, part: TrainingRows, tail: TrainingRows) -> Candidate:
    outputs = fitted.outputs(tail.matrix)
    found = measured(tail, outputs)
    dataset: dict[str, JsonValue] = {
        **part.manifest,
        "rows": len(part),
        "first_sequence": int(part.sequences[0]),
        "last_sequence": int(part.sequences[-1]),
        "tail_rows": len(tail),
    }
    created: dict[str, JsonValue] = {**fitted.describe(), "kind": kind, "window": name}
    provenance = Provenance(dataset, found, created)
    artefact = fitted.artefact(part.features, golden_rows(part.matrix), provenance)
    return Candidate(kind, name, artefact, found, outputs, int(tail.sequences[0]))
