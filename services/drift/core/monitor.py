"""The monitor of one pipeline: labelled rows and profiles in, alarms out, one fold."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.drift.core.calibration import SAFETY
from services.drift.core.performance import Judged, Performance, Worse
from services.drift.core.records import MISSING, Alarm, LabeledRows, ProfileRow
from services.drift.core.serving import Serving
from services.drift.core.state import pack, unpack
from shared.contracts.policies import DriftPolicy

FAMILY_SHARES = {"performance": 0.5, "prediction": 0.25, "data": 0.25}
"""How the budget of false alarms is spent, in equal parts a declared family; performance weighs twice."""
LEAST_PROBABILITY = 0.05
"""Log loss is clipped here and scaled to [0, 1]: one sure mistake must not outweigh a hundred rows."""


class Monitor:
    """Folds labeled.v1 and profiles.v1 into alarms; the same log gives the same alarms, however it is cut.

    Rows that revise an outcome (LATE, CORRECTION) and rows of a canary are passed over. The version in force is
    the one whose rows come now; late outcomes of another version are passed over as well, and a change of version
    begins the performance and prediction families anew, so that a promotion is no alarm.
    """

    def __init__(self, policy: DriftPolicy, feature_names: Sequence[str], classes: int) -> None:
        self._policy = policy
        self._names = tuple(feature_names)
        self._classes = classes
        total = sum(FAMILY_SHARES[family] for family in policy.families)
        rows = SAFETY * policy.false_alarm_every
        self._between = {family: rows * total / FAMILY_SHARES[family] for family in policy.families}
        self._serving = Serving()
        self._sequence = -1
        self._performance = (
            Performance(classes, policy.quiet, self._between["performance"])
            if "performance" in policy.families
            else None
        )

    def labeled(self, rows: LabeledRows) -> list[Alarm]:
        """Fold outcomes in sequence order; the alarms they raise, in order."""
        if not len(rows):
            return []
        self._sequence = int(rows.sequence[-1])
        keep = np.ones(len(rows), np.bool_) if rows.kind is None else rows.kind <= MISSING
        if rows.champion is not None:
            keep &= rows.champion
        first = rows if keep.all() else rows.take(keep)
        alarms: list[Alarm] = []
        for anew, part in self._serving.split(first.model_version):
            alarms += self._served(first.take(part), anew)
        return sorted(alarms, key=lambda alarm: alarm.sequence)

    def _served(self, rows: LabeledRows, anew: bool) -> list[Alarm]:
        """Rows of the version in force; `anew` if they are its first."""
        if self._performance is None:
            return []
        if anew:
            self._performance.reset()
        judged = judge(rows)
        return [self._worse(found, rows) for found in self._performance.step(judged)]

    def _worse(self, found: Worse, rows: LabeledRows) -> Alarm:
        before, after = (errors / max(1, count) for errors, count in (found.before, found.after))
        return Alarm(
            "performance",
            found.detector,
            "error",
            int(rows.sequence[found.row]),
            int(rows.order_time[found.row]),
            found.since_sequence,
            found.statistic,
            found.threshold,
            _outcomes(found.before),
            _outcomes(found.after),
            "performance" in self._policy.triggers,
            f"errors of version {rows.model_version[found.row]} rose from {before:.1%} to {after:.1%} "
            f"since sequence {found.since_sequence}, in {found.part}",
        )

    def profile(self, row: ProfileRow) -> list[Alarm]:
        """Fold one profile; the alarms it raises."""
        return []

    def snapshot(self) -> bytes:
        """The whole state: a monitor restored from it goes on as this one would."""
        state: dict[str, Any] = {"sequence": self._sequence, "serving": self._serving.state()}
        if self._performance is not None:
            state["performance"] = self._performance.state()
        return pack(state)

    def restore(self, data: bytes) -> None:
        """Go on where `snapshot` was called.

        Raises:
            ValueError: these are no bytes of a monitor, or of another format.
        """
        state = unpack(data)
        self._sequence = state["sequence"]
        self._serving.load(state["serving"])
        if self._performance is not None and "performance" in state:
            self._performance.load(state["performance"])


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
