"""The monitor of one pipeline: labelled rows and profiles in, alarms out, one fold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from services.drift.core.answers import Answers
from services.drift.core.calibration import SAFETY
from services.drift.core.clock import Clock
from services.drift.core.joint import Apart, Joint
from services.drift.core.performance import Judged, Performance, Worse
from services.drift.core.profiles import Moved, Profiles
from services.drift.core.records import MISSING, Alarm, LabeledRows, ProfileRow
from services.drift.core.scores import Prediction, Shift
from services.drift.core.serving import Serving
from services.drift.core.state import pack, unpack
from shared.contracts.policies import DriftPolicy
from shared.profiling import ANSWERS

FAMILY_SHARES = {"performance": 0.7, "prediction": 0.15, "data": 0.15}
"""How the declared families share the false alarms: most to the one that sets off a retraining."""
LEAST_PROBABILITY = 0.05
"""Log loss is clipped here and scaled to [0, 1]: one sure mistake must not outweigh a hundred rows."""


class Monitor:
    """Folds labeled.v1 and profiles.v1 into alarms; the same log gives the same alarms, however it is cut.

    Rows that revise an outcome (LATE, CORRECTION) and rows of a canary are passed over. The version in force is
    the one whose rows come now; late outcomes of another version are passed over as well, and a change of version
    begins the performance and prediction families anew, so that a promotion is no alarm. Until a new version has
    its own past, it is held to what the one before it did.
    """

    def __init__(
        self,
        policy: DriftPolicy,
        feature_names: Sequence[str],
        classes: int,
        categories: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self._triggers = frozenset(policy.triggers)
        self._names = tuple(feature_names)
        self._serving = Serving()
        self._clock = Clock()
        rows = SAFETY * policy.false_alarm_every
        total = sum(FAMILY_SHARES[family] for family in set(policy.families))
        between = {family: rows * total / FAMILY_SHARES[family] for family in policy.families}
        self._performance: Performance | None = None
        self._prediction: Prediction | None = None
        self._answers: Answers | None = None
        self._joint: Joint | None = None
        self._profiles: Profiles | None = None
        if "performance" in between:
            self._performance = Performance(classes, policy.quiet, between["performance"])
        if "prediction" in between:
            half = 2 * between["prediction"]
            self._prediction = Prediction(classes, policy.reference, policy.quiet, half)
            self._answers = Answers(policy.reference, half)
        if "data" in between:
            half = 2 * between["data"]
            self._joint = Joint(len(self._names), policy.reference, half)
            self._profiles = Profiles(policy.reference, half, categories)

    def labeled(self, rows: LabeledRows) -> list[Alarm]:
        """Fold outcomes in sequence order; the alarms they raise, in order."""
        if not len(rows):
            return []
        self._clock.step(rows.sequence, rows.order_time)
        keep = np.ones(len(rows), np.bool_) if rows.kind is None else rows.kind <= MISSING
        if rows.champion is not None:
            keep &= rows.champion
        first = rows if keep.all() else rows.take(keep)
        alarms: list[Alarm] = []
        for anew, part in self._serving.split(first.model_version):
            alarms += self._served(first.take(part), anew)
        if self._joint is not None and self._names and len(first):
            alarms += [
                self._apart(found, first) for found in self._joint.step(first.features, first.sequence)
            ]
        return sorted(alarms, key=lambda alarm: alarm.sequence)

    def _served(self, rows: LabeledRows, anew: bool) -> list[Alarm]:
        """Rows of the version in force; `anew` if they are its first."""
        judged = judge(rows)
        alarms: list[Alarm] = []
        if self._performance is not None:
            if anew:
                self._performance.succeed()
            alarms += [self._worse(found, rows) for found in self._performance.step(judged)]
        if self._prediction is not None:
            if anew:
                self._prediction.reset()
            alarms += [self._shift(found, rows) for found in self._prediction.step(judged, rows.score)]
        return alarms

    def _worse(self, found: Worse, rows: LabeledRows) -> Alarm:
        before, after = (errors / max(1, count) for errors, count in (found.before, found.after))
        return self._alarm(
            "performance",
            "error",
            found,
            rows,
            (_outcomes(found.before), _outcomes(found.after)),
            f"errors of version {rows.model_version[found.row]} rose from {before:.1%} to {after:.1%} "
            f"since sequence {found.since_sequence}, in {found.part}",
        )

    def _shift(self, found: Shift, rows: LabeledRows) -> Alarm:
        evidence = found.reference, found.current
        return self._alarm("prediction", found.subject, found, rows, evidence, found.detail)

    def _apart(self, found: Apart, rows: LabeledRows) -> Alarm:
        telling = ", ".join(self._names[at] for at in found.telling)
        detail = (
            f"a classifier tells the newest rows from the reference (AUC {found.statistic:.3f}) by {telling}"
        )
        return self._alarm("data", "joint", found, rows, (found.reference, found.current), detail)

    def _alarm(
        self,
        family: str,
        subject: str,
        found: Worse | Shift | Apart,
        rows: LabeledRows,
        evidence: tuple[Mapping[str, Any], Mapping[str, Any]],
        detail: str,
    ) -> Alarm:
        """An alarm raised by row `found.row` of `rows`."""
        return Alarm(
            family,
            found.detector,
            subject,
            int(rows.sequence[found.row]),
            int(rows.order_time[found.row]),
            found.since_sequence,
            found.statistic,
            found.threshold,
            *evidence,
            family in self._triggers,
            detail,
        )

    def profile(self, row: ProfileRow) -> list[Alarm]:
        """Fold one profile; the alarms it raises. They are final once `dated` where `passed` holds."""
        if row.of == ANSWERS:
            found = [] if self._answers is None else self._answers.step(row)
            return [self._moved("prediction", each, row) for each in found]
        found = [] if self._profiles is None else self._profiles.step(row)
        return [self._moved("data", each, row) for each in found]

    @property
    def promised(self) -> Mapping[int, float]:
        """By unit, the accuracy that its newest answers promise, 0 to 1; empty before the first profile."""
        return {} if self._answers is None else self._answers.promised

    def _moved(self, family: str, moved: Moved, row: ProfileRow) -> Alarm:
        """An alarm raised by a profile."""
        return self.dated(
            Alarm(
                family,
                moved.detector,
                moved.subject,
                -1,
                row.order_time,
                -1,
                moved.statistic,
                moved.threshold,
                moved.reference,
                moved.current,
                family in self._triggers,
                moved.detail,
                f"{row.unit}.{row.number}",
                row.first_order_time,
            )
        )

    def passed(self, order_time: int) -> bool:
        """Whether an outcome beyond that time is known: none that comes can date an alarm of that time anew."""
        return self._clock.passed(order_time)

    def dated(self, alarm: Alarm) -> Alarm:
        """A profile's alarm with the outcomes of its own time, by those folded so far: the newest up to its last
        row, and the first from its first row on where there is one.
        """
        newest = self._clock.newest(alarm.order_time)
        since = self._clock.newest(alarm.first_order_time - 1) + 1
        return replace(alarm, sequence=newest, since_sequence=min(newest, since))

    def _families(self) -> dict[str, Performance | Prediction | Answers | Joint | Profiles]:
        """The parts that have a state."""
        parts = {
            "performance": self._performance,
            "prediction": self._prediction,
            "answers": self._answers,
            "joint": self._joint,
            "profiles": self._profiles,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def snapshot(self) -> bytes:
        """The whole state: a monitor restored from it goes on as this one would."""
        state = {name: part.state() for name, part in self._families().items()}
        return pack(state | {"clock": self._clock.state(), "serving": self._serving.state()})

    def restore(self, data: bytes) -> None:
        """Go on where `snapshot` was called; a family that was not declared then begins anew.

        Raises:
            ValueError: these are no bytes of a monitor, or of another format.
        """
        state = unpack(data)
        if "clock" in state:
            self._clock.load(state["clock"])
        else:  # a state from before profiles were dated
            self._clock = Clock(state["sequence"])
        self._serving.load(state["serving"])
        for name, part in self._families().items():
            if name in state:
                part.load(state[name])


def judge(rows: LabeledRows) -> Judged:
    """Errors, clipped losses and confidences of the answers."""
    at = np.arange(len(rows))
    if rows.probabilities is None:
        confidence = np.maximum(rows.score, 1.0 - rows.score)
        right = np.where(rows.label_class == rows.predicted_class, confidence, 1.0 - confidence)
    else:
        confidence = rows.probabilities.max(1)
        known = (rows.label_class >= 0) & (rows.label_class < rows.probabilities.shape[1])
        right = np.where(known, rows.probabilities[at, np.where(known, rows.label_class, 0)], 0.0)
    loss = np.log(np.clip(np.nan_to_num(right), LEAST_PROBABILITY, 1.0)) / np.log(LEAST_PROBABILITY)
    errors = (rows.label_class != rows.predicted_class).astype(np.uint8)
    return Judged(errors, loss, np.nan_to_num(confidence), rows.predicted_class, rows.sequence)


def _outcomes(counts: tuple[int, int]) -> dict[str, Any]:
    errors, rows = counts
    return {"bins": ["right", "wrong"], "counts": [rows - errors, errors]}
