"""What every kind learns from, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from services.retrainer.core.metrics import figures
from shared.errors import Refused
from shared.models.building import Features, Provenance
from shared.models.manifest import Artefact, Linear, Mlp

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Served vectors with their outcomes in time order, the oldest first.

    matrix float64[n, k]; classes int64[n], places in the label's declared classes; weights float64[n] above
    0, or None where all count alike; event_times int64[n] in ms; sequences int64[n] of the ledger, ascending.
    manifest says in JSON which rows these are.
    """

    features: Features
    matrix: Floats
    classes: Ints
    class_count: int
    weights: Floats | None
    event_times: Ints
    sequences: Ints
    manifest: dict[str, JsonValue]
    # Of two classes, the one that a score is the probability of.
    positive: int = 1
    # Features that hold codes 0..cardinality-1 of a category, by their place.
    categorical: Mapping[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def targets(self) -> Ints:
        """Classes as a model numbers them int64[n]: of two, 1 is the positive one."""
        return (self.classes == self.positive).astype(np.int64) if self.class_count == 2 else self.classes

    def part(self, rows: slice, weights: Floats | None = None) -> "TrainingRows":
        """Some of the rows, in order; `weights` of theirs are multiplied in."""
        own = None if self.weights is None else self.weights[rows]
        if weights is not None:
            own = weights if own is None else own * weights
        return replace(
            self,
            matrix=self.matrix[rows],
            classes=self.classes[rows],
            weights=own,
            event_times=self.event_times[rows],
            sequences=self.sequences[rows],
        )

    def check(self) -> None:
        """ValueError for rows that are no rows; Refused, with a next step, where they cannot teach."""
        count, width = self.matrix.shape
        if width != len(self.features.names) or not len(self.classes) == len(self.sequences) == count:
            raise ValueError(f"{count} rows of {width}, {len(self.classes)} classes")
        if (np.diff(self.sequences) <= 0).any():
            raise ValueError("sequences must ascend")
        if count and (self.classes.min() < 0 or self.classes.max() >= self.class_count):
            raise ValueError(f"a class is outside 0..{self.class_count - 1}")
        if not np.isfinite(self.matrix).all():
            raise Refused("a feature is NaN or infinite; correct its declaration or its source")


class Fitted(Protocol):
    """A model that was fitted, and can be frozen."""

    def outputs(self, matrix: Floats) -> Floats:
        """P(positive class) float64[n], or float64[n, classes] for more than two."""

    def artefact(self, features: Features, samples: Floats, provenance: Provenance) -> Artefact:
        """What a worker can load; `samples` become the golden inputs."""

    def describe(self) -> dict[str, JsonValue]:
        """How it was fitted, in JSON."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a training is to be done. `architecture` is the declared one, for the kind `torch`."""

    architecture: Linear | Mlp
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    balance: bool = False
    """Whether all classes count alike: it ranks rare ones better, and what comes out is no probability."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained model with its figures on the validation tail, which it never saw.

    `outputs` are its answers there, in order; `validation_from` is the first sequence of the tail.
    """

    kind: str
    window: str
    artefact: Artefact
    figures: dict[str, float]
    outputs: Floats
    validation_from: int


def measured(rows: TrainingRows, outputs: Floats) -> dict[str, float]:
    """Figures of outputs on rows, and how many rows they are of."""
    return figures(rows.targets, outputs) | {"rows": float(len(rows))}


def several(rows: TrainingRows) -> None:
    """Refused unless the rows show at least two classes."""
    if not len(rows) or (rows.classes == rows.classes[0]).all():
        raise Refused("every label is of one class; training needs two: wait for another outcome")
