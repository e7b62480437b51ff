"""What the monitor reads and says: labelled rows, profiles, alarms."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.profiling import FEATURES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LABEL, MISSING, LATE, CORRECTION = range(4)
"""Kinds of a labelled row; the last two revise an outcome that was counted before."""


@dataclass(frozen=True, slots=True)
class LabeledRows:
    """Rows of labeled.v1 in sequence order, none of them a shadow's; n rows, k features, C classes.

    `sequence`, `order_time`, `label_class`, `predicted_class`, `model_version` int64[n]; `score` float64[n];
    `probabilities` float64[n, C] or none (binary: `score` is the probability of class `positive`); `features`
    float64[n, k]; `kind` int64[n] of LABEL, MISSING, LATE, CORRECTION or none (all LABEL); `champion` bool[n] or
    none (all): a canary's rows are passed over, as they would look like a change of version at every row.
    """

    sequence: Ints
    order_time: Ints
    label_class: Ints
    predicted_class: Ints
    score: Floats
    features: Floats
    model_version: Ints
    probabilities: Floats | None = None
    kind: Ints | None = None
    champion: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.sequence)

    def take(self, keep: npt.NDArray[Any] | slice) -> "LabeledRows":
        """The rows at `keep`: a mask, indices or a slice."""
        return LabeledRows(
            self.sequence[keep],
            self.order_time[keep],
            self.label_class[keep],
            self.predicted_class[keep],
            self.score[keep],
            self.features[keep],
            self.model_version[keep],
            None if self.probabilities is None else self.probabilities[keep],
            None if self.kind is None else self.kind[keep],
            None if self.champion is None else self.champion[keep],
        )


@dataclass(frozen=True, slots=True)
class ProfileColumn:
    """One column's distribution: occupied `buckets` ascending with their `counts`, zeros and missing apart;
    `total` and `squares` are the sums of its values and of their squares.
    """

    buckets: Ints
    counts: Ints
    zeros: int
    missing: int
    minimum: float
    maximum: float
    total: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One record of profiles.v1."""

    unit: int
    number: int
    rows: int
    first_order_time: int
    order_time: int
    names: tuple[str, ...]
    columns: tuple[ProfileColumn, ...]
    of: str = FEATURES
    model_version: int = 0


@dataclass(frozen=True, slots=True)
class Alarm:
    """One record of drift.v1, as its schema says."""

    family: str
    detector: str
    subject: str
    sequence: int
    order_time: int
    since_sequence: int
    magnitude: float
    threshold: float
    reference: Mapping[str, Any] = field(default_factory=dict)
    current: Mapping[str, Any] = field(default_factory=dict)
    triggers: bool = False
    detail: str = ""
    mark: str = ""
    first_order_time: int = -1
    """Of a profile: when its first row came."""

    @property
    def id(self) -> str:
        """The same for the same alarm: family/detector/subject/sequence; a profile's place for the sequence."""
        return f"{self.family}/{self.detector}/{self.subject}/{self.mark or self.sequence}"

    def record(self) -> dict[str, Any]:
        """The fields of drift.v1, both histograms as JSON."""
        return {
            "id": self.id,
            "family": self.family,
            "detector": self.detector,
            "subject": self.subject,
            "sequence": self.sequence,
            "order_time": self.order_time,
            "since_sequence": self.since_sequence,
            "magnitude": self.magnitude,
            "threshold": self.threshold,
            "reference": json.dumps(self.reference, sort_keys=True),
            "current": json.dumps(self.current, sort_keys=True),
            "triggers": self.triggers,
            "detail": self.detail,
        }
