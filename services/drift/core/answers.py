"""The prediction family on profiles of answers: seen as they are given, however late their outcomes come."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import expit, ndtri  # type: ignore[import-untyped]

from services.drift.core.kernels import Floats, Ints
from services.drift.core.profiles import Moved, Past, Profiles
from services.drift.core.records import ProfileColumn, ProfileRow
from shared.profiling import edge

SCORE = "score"
"""The column of log-odds: of the positive class where there are two, else of the predicted one."""
KEPT = {"psi", "jensen_shannon"}
"""Of the tests of a feature those that mean something for an answer: a score never seen before is a tail."""


class Answers:
    """Compares each profile of answers with the past of its unit and version; another version begins anew.

    Beside the distributions of scores and classes it watches the accuracy that the answers promise, the mean of
    their confidence, one-sided: that a model is surer of itself is no alarm. `rows_between` is the budget of all.
    """

    def __init__(self, classes: int, reference: int, rows_between: float) -> None:
        self._profiles = _Compared(classes == 2, reference, rows_between)
        self._versions: dict[int, int] = {}
        self.promised: dict[int, float] = {}
        """By unit, the accuracy that its newest profile promises: the mean confidence."""

    def step(self, row: ProfileRow) -> list[Moved]:
        """Fold one profile; the most telling test of what moved, the furthest first."""
        if self._versions.get(row.unit) != row.model_version:
            self._profiles.forget(row.unit)
            self._versions[row.unit] = row.model_version
        self.promised[row.unit] = self._profiles.promise(row.columns[row.names.index(SCORE)])
        return [_as_probabilities(each) for each in self._profiles.step(row)]

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        versions = {str(unit): version for unit, version in self._versions.items()}
        return {"units": self._profiles.state(), "versions": versions}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._profiles.load(state["units"])
        self._versions = {int(unit): version for unit, version in state["versions"].items()}


class _Compared(Profiles):
    """Profiles whose scores make a promise."""

    def __init__(self, binary: bool, reference: int, rows_between: float) -> None:
        super().__init__(reference, rows_between)
        self._binary = binary

    def _tests(
        self, name: str, past: Past, column: ProfileColumn, rows: int, probability: float
    ) -> list[Moved]:
        found = [
            each for each in super()._tests(name, past, column, rows, probability) if each.detector in KEPT
        ]
        if name != SCORE:
            return found
        places, before, now = past.aligned(column)
        sure = self._confidence(places)
        (was, spread), (is_, other) = _moments(sure, before), _moments(sure, now)
        text = f"accuracy that the answers promise: {was:.1%} before, {is_:.1%} now"
        found = [replace(each, detail=f"{each.detail}; {text}") for each in found]
        noise = math.sqrt(past.inflation * (spread / max(1, before.sum()) + other / max(1, now.sum())))
        limit = max(-float(ndtri(probability)) * noise, 1e-9)
        if was - is_ > limit:
            _, _, evidence = self._compared(past, column)
            found.append(Moved("promised_accuracy", name, was - is_, limit, *evidence, text))
        return found

    def promise(self, column: ProfileColumn) -> float:
        """The mean confidence of a column of log-odds."""
        places, _, counts = Past().aligned(column)
        return _moments(self._confidence(places), counts)[0]

    def _confidence(self, places: Sequence[int]) -> Floats:
        """The confidence of an answer in the middle of each bucket of log-odds."""
        middle = np.array([(edge(place) + edge(_beyond(place))) / 2 if place else 0.0 for place in places])
        return np.asarray(expit(np.abs(middle) if self._binary else middle), np.float64)


def _beyond(place: int) -> int:
    """The next bucket away from zero."""
    return place + 1 if place > 0 else place - 1


def _moments(values: Floats, counts: Ints) -> tuple[float, float]:
    """Mean and variance of values that came so often."""
    total = max(1, int(counts.sum()))
    mean = float(values @ counts) / total
    return mean, float(((values - mean) ** 2) @ counts) / total


def _as_probabilities(moved: Moved) -> Moved:
    """Evidence of scores with the edges that people know."""
    if moved.subject != SCORE:
        return moved
    return replace(moved, reference=_edges(moved.reference), current=_edges(moved.current))


def _edges(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return {**evidence, "edges": [float(expit(each)) for each in evidence["edges"]]}
