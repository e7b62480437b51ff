"""How many labels the loop needs to recover from an abrupt change: drift, retraining and gate, without a broker.

Run: `python -m tests.bench.bench_recovery [EVERY [SEED]]`: every EVERYth abrupt stream of drift_streams; prints a
Markdown table. Alarms, triggers, candidates and verdicts are those of the services' cores under their default
settings; a champion that passes the gate answers from the next event on. No outcome is late.
"""

import sys
from dataclasses import dataclass, field

import numpy as np
import torch

from services.controller.core.gate import judge as verdict_of
from services.drift.core.monitor import Monitor
from services.drift.core.records import LabeledRows
from services.retrainer.core.evaluate import Bout, Classes, evidence_of, fair_rows
from services.retrainer.core.kinds.choose import candidates, tail_of
from services.retrainer.core.kinds.online import OnlineLearner
from services.retrainer.core.kinds.rows import Candidate, Floats, Ints, TrainingRows
from services.retrainer.core.ledger import LearningRows
from services.retrainer.core.triggers import Trigger, drift_trigger
from services.retrainer.steps import LEAST_JUDGED
from shared.contracts.policies import DriftPolicy, GatePolicy, RetrainPolicy
from shared.errors import Refused
from shared.models.building import Features, untrained
from shared.models.loading import load_model
from shared.models.manifest import Artefact, Mlp
from tests.bench.drift_streams import Case, cases, rows_of

BEFORE, AFTER = 3_400, 3_000
"""The change comes between two trainings, neither right behind one nor right before."""
TRAIL = 250
REGAINED = 0.8
"""Of the accuracy that was lost, the share that must be back in the newest TRAIL outcomes."""
DRIFT, RETRAIN, GATE = DriftPolicy(), RetrainPolicy(), GatePolicy()
HIDDEN = (32, 16)


@dataclass(slots=True)
class Loop:
    """One stream through the loop: `scores` of every event by the champion of its time."""

    matrix: Floats
    classes: Ints
    count: int
    learn_until: int
    features: Features = field(init=False)
    monitor: Monitor = field(init=False)
    online: OnlineLearner = field(init=False)
    champion: Artefact = field(init=False)
    scores: Floats = field(init=False)
    trained_until: int = -1
    version: int = 1
    since: int | None = None
    alarms: list[int] = field(default_factory=list)
    promotions: list[int] = field(default_factory=list)
    drifts: list[Trigger] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = tuple(f"f{i}" for i in range(self.matrix.shape[1]))
        self.features = Features(names, "00" * 32)
        self.champion = untrained(self.features, classes=self.count)
        self.monitor = Monitor(DRIFT, names, self.count)
        self.online = OnlineLearner(self.features, self.count)
        shape = (len(self.classes),) if self.count == 2 else (len(self.classes), self.count)
        self.scores = np.zeros(shape)

    def run(self) -> Floats:
        """The errors, 0 or 1, of all events."""
        at = 0
        while at < len(self.classes):
            due = (at // RETRAIN.every_labels + 1) * RETRAIN.every_labels
            due = RETRAIN.min_rows if at < RETRAIN.min_rows else due
            if self.again() > at:
                due = min(due, self.again())
            at = self._serve(at, min(due, len(self.classes)))
        predicted = self.scores >= 0.5 if self.count == 2 else self.scores.argmax(1)
        return np.asarray(predicted != self.classes, np.float64)

    def again(self) -> int:
        """How many rows are known when the newest alarm is followed up; 0 before the first."""
        return self.drifts[-1].sequence + RETRAIN.follow_up + 1 if self.drifts and RETRAIN.follow_up else 0

    def _serve(self, start: int, end: int) -> int:
        """Answer events up to `end`, or up to an alarm before it; then train. The next event."""
        self.scores[start:end] = self._answers(self.champion, self.matrix[start:end])
        before = self.monitor.snapshot()
        found = [a for a in self.monitor.labeled(self._labeled(start, end)) if a.triggers]
        if found and found[0].sequence + 1 < end:
            end = found[0].sequence + 1
            self.monitor.restore(before)
            self.monitor.labeled(self._labeled(start, end))
        fires = end % RETRAIN.every_labels == 0 or end in (RETRAIN.min_rows, self.again())
        for alarm in found[:1]:
            self.alarms.append(alarm.sequence)
            self.since = alarm.since_sequence
            trigger = Trigger(alarm.id, "drift", alarm.sequence, alarm.order_time)
            if drift_trigger(RETRAIN, DRIFT.quiet, trigger, self.drifts) is trigger:
                self.drifts.append(trigger)
                fires = True
        if fires and end <= self.learn_until:
            self._train(end)
        return end

    def _labeled(self, start: int, end: int) -> LabeledRows:
        rows, scores = np.arange(start, end), self.scores[start:end]
        predicted = (scores >= 0.5).astype(np.int64) if self.count == 2 else scores.argmax(1)
        return LabeledRows(
            rows,
            rows * 1000,
            self.classes[start:end],
            predicted,
            scores if self.count == 2 else scores.max(1),
            self.matrix[start:end],
            np.full(end - start, self.version),
            None if self.count == 2 else scores,
        )

    def _answers(self, artefact: Artefact, matrix: Floats) -> Floats:
        model = load_model(artefact, self.features.fingerprint, self.features.names, classes=self.count)
        with torch.inference_mode():
            return np.asarray(
                model.network(torch.from_numpy(np.ascontiguousarray(matrix))).numpy(), np.float64
            )

    def _train(self, known: int) -> None:
        """All candidates on the outcomes so far; the best becomes champion if it passes the gate."""
        rows = TrainingRows(
            self.features,
            self.matrix[:known],
            self.classes[:known],
            self.count,
            None,
            np.arange(known) * 1000,
            np.arange(known),
            {},
        )
        try:
            best = self._candidates(rows)[0]
        except Refused:
            return
        tail = slice(known - len(best.outputs), known)
        if self._passes(best, tail):
            self.champion, self.version = best.artefact, self.version + 1
            self.trained_until = best.validation_from - 1
            self.promotions.append(known)

    def _candidates(self, rows: TrainingRows) -> list[Candidate]:
        terms = RETRAIN.window_rows, RETRAIN.validation, self.since
        if self.online.sequence >= len(rows) - tail_of(rows, *terms):  # a shorter tail was before this one
            self.online = OnlineLearner(self.features, self.count)
        return candidates(
            rows,
            kinds=RETRAIN.kinds,
            windows=RETRAIN.windows,
            window_rows=RETRAIN.window_rows,
            validation=RETRAIN.validation,
            drift_since=self.since,
            architecture=Mlp(inputs=len(self.features.names), hidden=HIDDEN, classes=self.count),
            seed=RETRAIN.seed,
            online=self.online,
        )

    def _passes(self, best: Candidate, tail: slice) -> bool:
        rows = np.arange(len(self.classes))[tail]
        none = np.zeros(len(rows), np.int64)
        judged = LearningRows(
            rows, rows.astype(np.uint64), self.classes[tail], rows * 1000, ("",), none, self.matrix[tail]
        )
        keep, unseen = fair_rows(judged, self.trained_until, min(LEAST_JUDGED, GATE.min_rows))
        champion = self._answers(self.champion, self.matrix[tail])
        bout = Bout(judged.pick(np.flatnonzero(keep)), champion[keep], best.outputs[keep], unseen)
        evidence = evidence_of(bout, Classes(self.count, 1), (), self.features.names)
        return verdict_of(evidence, GATE, f"propose-{tail.stop}").passed


def told(case: Case, seed: int) -> list[object]:
    """A row of the table."""
    old, new = rows_of(case.before(seed), BEFORE), rows_of(case.after(seed + 1000), AFTER)
    matrix = np.vstack([old[0], new[0]])
    known, classes = np.unique(np.concatenate([old[1], new[1]]), return_inverse=True)
    loop = Loop(matrix, classes.astype(np.int64), len(known), len(matrix))
    errors = loop.run()
    off = Loop(matrix, classes.astype(np.int64), len(known), BEFORE).run()
    before, after = errors[BEFORE - 500 : BEFORE].mean(), off[BEFORE:].mean()
    trail = np.convolve(errors[BEFORE:], np.full(TRAIL, 1 / TRAIL), "valid")
    good = np.flatnonzero(trail <= after - REGAINED * (after - before))
    first = [
        next((at - BEFORE for at in found if at >= BEFORE), "-") for found in (loop.alarms, loop.promotions)
    ]
    figures = (before, after, errors[BEFORE:].mean(), errors[-500:].mean())
    recovered = TRAIL + int(good[0]) if len(good) else "-"
    return [case.name, *(f"{each:.3f}" for each in figures), *first, recovered]


def main() -> None:
    """Print the table."""
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    torch.set_num_threads(1)
    heads = (
        "stream",
        "error before",
        "after, loop off",
        "loop on",
        "its last 500",
        "alarm",
        "promoted",
        "recovered",
    )
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for case in [case for case in cases() if not case.gradual][::every]:
        print("| " + " | ".join(str(each) for each in told(case, seed)) + " |", flush=True)


if __name__ == "__main__":
    main()
