"""What the rows of a dataset hold, and what is odd about it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from services.retrainer.core.ledger import LearningRows, LedgerRows
from shared.contracts.generated import LABEL_KINDS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# A jump of the label rate beyond so many standard errors is no accident of sampling.
RATE_Z = 6.0
MISSING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something odd: `code` is bounded, `stops` where no model can come of these rows."""

    code: str
    subject: str
    detail: str
    stops: bool = False

    def to_json(self) -> dict[str, JsonValue]:
        """As runs.v1 carries it."""
        return {"code": self.code, "subject": self.subject, "detail": self.detail, "stops": self.stops}


def describe_features(names: Sequence[str], matrix: Floats) -> dict[str, dict[str, float]]:
    """Per feature minimum, maximum, mean and deviation of its finite values, and the share that is not."""
    found = {}
    for name, column in zip(names, matrix.T, strict=True):
        good = column[np.isfinite(column)]
        figures = {"missing": float(1 - len(good) / len(column)) if len(column) else 1.0}
        if len(good):
            with np.errstate(over="ignore"):
                spread = float(good.std())
            figures |= {"minimum": float(good.min()), "maximum": float(good.max())}
            figures |= {"mean": float(good.mean()), "deviation": spread}
        found[name] = {key: value for key, value in figures.items() if np.isfinite(value)}
    return found


def counts_of(
    rows: LedgerRows, learning: LearningRows, classes: Sequence[str], versions: Ints
) -> dict[str, dict[str, int]]:
    """How many rows by kind, role and version; how many events by class and source."""
    served = ~rows.shadow
    numbers, of_version = np.unique(versions[served], return_counts=True)
    by_class = np.bincount(learning.classes, minlength=len(classes))
    by_source = np.bincount(learning.source, minlength=len(learning.sources))
    return {
        "rows": {"all": len(rows.sequences), "shadow": int(rows.shadow.sum()), "events": len(learning)},
        "kind": {name: int(((rows.kinds == i) & served).sum()) for i, name in enumerate(LABEL_KINDS)},
        "version": dict(zip(map(str, numbers.tolist()), map(int, of_version.tolist()), strict=True)),
        "class": dict(zip(classes, map(int, by_class.tolist()), strict=True)),
        "source": dict(zip(learning.sources, map(int, by_source.tolist()), strict=True)),
    }


def content_of(learning: LearningRows) -> str:
    """sha256 over id, class and vector of every event in the order of their ids: the same however they came."""
    ids = learning.ids
    order = np.argsort(ids, kind="stable")
    parts = np.column_stack([ids[order].view(np.int64), learning.classes[order]])
    digest = hashlib.sha256(np.ascontiguousarray(parts, "<i8").tobytes())
    digest.update(np.ascontiguousarray(learning.matrix[order], "<f8").tobytes())
    return digest.hexdigest()


def anomalies(
    learning: LearningRows, names: Sequence[str], classes: Sequence[str], min_rows: int, kinds: dict[str, int]
) -> list[Anomaly]:
    """Everything odd; what stops first."""
    found = [*_about_rows(learning, min_rows), *_about_classes(learning, classes)]
    found += _about_features(learning.matrix, names)
    found += _about_rates(learning, classes)
    total = sum(kinds.values())
    if total and kinds.get("MISSING", 0) > MISSING_SHARE * total:
        detail = f"{kinds['MISSING']} of {total} outcomes are the declared class of those that never came"
        found.append(Anomaly("label.missing", "", detail))
    return sorted(found, key=lambda each: not each.stops)


def _about_rows(learning: LearningRows, min_rows: int) -> list[Anomaly]:
    if len(learning) >= min_rows:
        return []
    return [Anomaly("rows.few", "", f"{len(learning)} events, {min_rows} are asked for", stops=True)]


def _about_classes(learning: LearningRows, classes: Sequence[str]) -> list[Anomaly]:
    counts = np.bincount(learning.classes, minlength=len(classes))
    if np.count_nonzero(counts) < 2:
        return [Anomaly("class.single", "", "every outcome is of one class", stops=True)]
    return [
        Anomaly("class.absent", name, "no event has this outcome")
        for name, count in zip(classes, counts.tolist(), strict=True)
        if count == 0
    ]


def _about_features(matrix: Floats, names: Sequence[str]) -> list[Anomaly]:
    found = []
    for name, column in zip(names, matrix.T, strict=True):
        missing, infinite = int(np.isnan(column).sum()), int(np.isinf(column).sum())
        if missing:
            found.append(Anomaly("feature.missing", name, f"{missing} of {len(column)} values"))
        if infinite:
            found.append(Anomaly("feature.infinite", name, f"{infinite} of {len(column)} values"))
        good = column[np.isfinite(column)]
        if len(good) > 1 and good.min() == good.max():
            found.append(Anomaly("feature.constant", name, f"always {good[0]:g}"))
    return found


def _about_rates(learning: LearningRows, classes: Sequence[str]) -> list[Anomaly]:
    """Classes whose share in the newest fifth is far from that in the rest, by a two-proportion z."""
    cut = len(learning) - len(learning) // 5
    before, after = learning.classes[:cut], learning.classes[cut:]
    if len(after) < 30:
        return []
    found = []
    for index, name in enumerate(classes):
        p, q = float((before == index).mean()), float((after == index).mean())
        pooled = float((learning.classes == index).mean())
        error = (pooled * (1 - pooled) * (1 / len(before) + 1 / len(after))) ** 0.5
        if error and abs(q - p) > RATE_Z * error:
            found.append(Anomaly("label.rate", name, f"{p:.3f} before, {q:.3f} in the newest fifth"))
    return found
