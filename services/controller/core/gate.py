"""The gate: is a candidate surely better than the champion, on the same served events?

Every comparison is paired: a resample draws the same rows for both. The bound is one-sided. A candidate must
improve on all rows, on the rows without any one label source, and must not be surely worse in a slice.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from services.controller.core.measures import MEASURES, Scored, block_weights, value
from shared.contracts.policies import LESS_IS_BETTER, GatePolicy
from shared.models.evidence import Evidence

MOST_SOURCES = 32
"""Label sources that are left out one at a time; of more, those with the most rows."""
LEAST_ROWS = 10
"""Fewer rows than this say nothing of a slice."""

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is `gate.passed` or what failed first; `figures` are JSON and hold every comparison."""

    passed: bool
    reason: str
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate against champion on some rows: positive `improvement` is better whatever the metric.

    With the declared confidence the true improvement is at least `low`, and at most `high`.
    """

    rows: int
    champion: float
    candidate: float
    improvement: float
    low: float
    high: float

    def figures(self) -> Figures:
        """As JSON; an undefined figure is null."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def _plain(number: float) -> float | int | None:
    if isinstance(number, float):
        return round(number, 9) if math.isfinite(number) else None
    return number


def _number(found: object) -> float | None:
    """A sane amount, or None."""
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    return float(found) if -1e18 < found < 1e18 else None


def better_by(metric: str, candidate: float, champion: float) -> float:
    """How much better the candidate's figure is.

    >>> better_by("log_loss", 0.4, 0.5) > 0, better_by("accuracy", 0.4, 0.5) > 0
    (True, False)
    """
    return champion - candidate if metric in LESS_IS_BETTER else candidate - champion


def seed_of(identity: str) -> int:
    """A seed from a command's id: the same proposal always draws the same rows."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "little")


def compare(champion: Scored, candidate: Scored, policy: GatePolicy, seed: int) -> Comparison:
    """The paired comparison; NaN bounds where more than half of the resamples leave the metric undefined."""
    metric, rows = policy.metric, len(champion.labels)
    figures = value(metric, champion), value(metric, candidate)
    weights = block_weights(rows, policy.bootstrap, seed)
    measure = MEASURES[metric]
    gains = measure(candidate, weights) - measure(champion, weights)
    if metric in LESS_IS_BETTER:
        gains = -gains
    defined = gains[np.isfinite(gains)]
    low = high = math.nan
    if 2 * len(defined) > len(gains):
        low, high = np.quantile(defined, [1 - policy.confidence, policy.confidence]).tolist()
    return Comparison(rows, figures[0], figures[1], better_by(metric, figures[1], figures[0]), low, high)


def judge(
    evidence: Evidence, policy: GatePolicy, identity: str, parameters: Mapping[str, Any] | None = None
) -> Verdict:
    """Judge a proposal by its evidence; `parameters` may name `row_seconds` and `bytes` of the artefact."""
    return _Gate(evidence, policy, seed_of(identity), parameters or {}).judge()


class _Gate:
    """One judgement; the checks run in the order of the reasons."""

    def __init__(
        self, evidence: Evidence, policy: GatePolicy, seed: int, parameters: Mapping[str, Any]
    ) -> None:
        self._evidence, self._policy, self._seed, self._parameters = evidence, policy, seed, parameters
        self._champion = Scored.of(evidence.labels, evidence.champion)
        self._candidate = Scored.of(evidence.labels, evidence.candidate)
        self._figures: Figures = {
            "metric": policy.metric,
            "margin": policy.margin,
            "confidence": policy.confidence,
            "rows": evidence.rows,
            "first_sequence": int(evidence.sequences[0]),
            "last_sequence": int(evidence.sequences[-1]),
        }

    def judge(self) -> Verdict:
        self._figures["measures"] = {
            metric: {
                "champion": _plain(value(metric, self._champion)),
                "candidate": _plain(value(metric, self._candidate)),
            }
            for metric in MEASURES
        }
        checks = (self._limits, self._rows, self._overall, self._without_a_source, self._slices)
        for check in checks:
            failed = check()
            if failed:
                return Verdict(False, failed, self._figures)
        return Verdict(True, "gate.passed", self._figures)

    def _limits(self) -> str:
        for name, most, reason in (
            ("row_seconds", self._policy.max_row_seconds, "gate.latency"),
            ("bytes", self._policy.max_bytes, "gate.size"),
        ):
            found = _number(self._parameters.get(name))
            self._figures[name] = found
            if most is not None and (found is None or found > most):
                return reason
        return ""

    def _rows(self) -> str:
        return "gate.rows" if self._evidence.rows < self._policy.min_rows else ""

    def _overall(self) -> str:
        found = self._compare(np.ones(self._evidence.rows, np.bool_), 0)
        self._figures |= found.figures()
        if math.isnan(found.low):
            return "gate.undefined"
        return "" if found.low > self._policy.margin else "gate.margin"

    def _without_a_source(self) -> str:
        """The improvement must not hang on the word of one source; where little remains nothing is said."""
        found: Figures = {}
        self._figures["without_source"] = found
        sources, counts = np.unique(self._evidence.sources, return_counts=True)
        failed = ""
        for source in sources[np.argsort(-counts, kind="stable")][:MOST_SOURCES].tolist():
            rest = self._evidence.sources != source
            if int(rest.sum()) < self._policy.min_rows:
                continue
            compared = self._compare(rest, 1 + source)
            found[self._evidence.source_names[source]] = compared.figures()
            if not compared.low > self._policy.margin:
                failed = "gate.source"
        return failed

    def _slices(self) -> str:
        found: Figures = {}
        self._figures["slices"] = found
        failed = ""
        for index, name in enumerate(self._evidence.slice_names):
            inside = self._evidence.in_slice(index)
            if int(inside.sum()) < LEAST_ROWS:
                continue
            compared = self._compare(inside, 0x10000 + index)
            found[name] = compared.figures()
            if compared.high < -self._policy.slice_tolerance:
                failed = "gate.slice"
        return failed

    def _compare(self, rows: npt.NDArray[np.bool_], salt: int) -> Comparison:
        champion, candidate = self._champion.take(rows), self._candidate.take(rows)
        return compare(champion, candidate, self._policy, self._seed ^ salt)
