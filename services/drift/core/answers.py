"""The prediction family on profiles of answers: seen as they are given, however late their outcomes come."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scipy.special import expit, ndtri  # type: ignore[import-untyped]

from services.drift.core.profiles import Moved, Past, Profiles
from services.drift.core.records import ProfileColumn, ProfileRow
from shared.profiling import CONFIDENCE, PREDICTED, SCORE, bucket, number_of

KEPT = {"psi", "jensen_shannon"}
"""Of the tests of a feature those that mean something for an answer: a score never seen before is a tail."""
TESTS = 5
"""Both of them for scores and for classes, and the promise."""
EACH = 1 << 14
"""More groups than buckets: each that was ever occupied stands alone."""


class Answers:
    """Compares each profile of answers with the past of its unit and version; another version begins anew.

    Beside the distributions of scores and classes it watches the accuracy that the answers promise, the mean of
    their confidence, one-sided: that a model is surer of itself is no alarm. `rows_between` is the budget of all.
    """

    def __init__(self, reference: int, rows_between: float) -> None:
        self._profiles = _Compared(reference, rows_between)
        self._versions: dict[int, int] = {}
        self.promised: dict[int, float] = {}
        """By unit, the accuracy that its newest profile promises: the mean confidence."""

    def step(self, row: ProfileRow) -> list[Moved]:
        """Fold one profile; the most telling test of what moved, the furthest first."""
        if self._versions.get(row.unit) != row.model_version:
            self._profiles.forget(row.unit)
            self._versions[row.unit] = row.model_version
        self.promised[row.unit] = row.columns[row.names.index(CONFIDENCE)].total / row.rows
        return [_readable(each) for each in self._profiles.step(row)]

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        versions = {str(unit): version for unit, version in self._versions.items()}
        return {"units": self._profiles.state(), "versions": versions}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._profiles.load(state["units"])
        self._versions = {int(unit): version for unit, version in state["versions"].items()}


class _Compared(Profiles):
    """Profiles whose confidence makes a promise."""

    def __init__(self, reference: int, rows_between: float) -> None:
        super().__init__(reference, rows_between)
        self._groups = {PREDICTED: EACH}

    def _tests_of(self, names: Sequence[str]) -> int:  # noqa: ARG002 - always the same names
        return TESTS

    def _tests(
        self, name: str, past: Past, column: ProfileColumn, rows: int, probability: float
    ) -> list[Moved]:
        if name == CONFIDENCE:
            return self._promise(past, column, rows, probability)
        found = super()._tests(name, past, column, rows, probability)
        return [each for each in found if each.detector in KEPT]

    def _promise(self, past: Past, column: ProfileColumn, rows: int, probability: float) -> list[Moved]:
        """A mean confidence that fell by more than chance allows."""
        was, spread = _moments(past.total, past.squares, past.rows)
        is_, other = _moments(column.total, column.squares, rows)
        noise = math.sqrt(past.inflation * (spread / past.rows + other / rows))
        limit = max(-float(ndtri(probability)) * noise, 1e-9)
        if was - is_ <= limit:
            return []
        _, _, evidence = self._compared(CONFIDENCE, past, column)
        text = f"accuracy that the answers promise: {was:.1%} before, {is_:.1%} now"
        return [Moved("promised_accuracy", CONFIDENCE, was - is_, limit, *evidence, text)]


def _moments(total: float, squares: float, rows: int) -> tuple[float, float]:
    """Mean and variance."""
    mean = total / rows
    return mean, max(0.0, squares / rows - mean * mean)


def _readable(moved: Moved) -> Moved:
    """Evidence with probabilities for log-odds, and numbers of classes for their buckets."""
    read: dict[str, Callable[[float], float]] = {
        SCORE: lambda value: float(expit(value)),
        PREDICTED: lambda value: number_of(bucket(value)),
    }
    if moved.subject not in read:
        return moved
    reference, current = (_read(each, read[moved.subject]) for each in (moved.reference, moved.current))
    return replace(moved, reference=reference, current=current)


def _read(evidence: Mapping[str, Any], as_: Callable[[float], float]) -> dict[str, Any]:
    return {**evidence, "edges": [as_(each) for each in evidence["edges"]]}
