"""The data family on profiles: does a feature look as it did? Each unit is compared with its own past."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import chi2  # type: ignore[import-untyped]

from services.drift.core.histograms import (
    chance,
    homogeneity,
    jensen_shannon,
    outside_limit,
    psi,
    quantile_groups,
)
from services.drift.core.kernels import Ints
from services.drift.core.records import ProfileColumn, ProfileRow
from shared.profiling import bucket, floor

GROUPS = 10
LEAST_PROFILES = 3
"""Profiles before a reference is one: how far two of them lie apart by themselves is seen from these."""
STRAYS = 2
"""Profiles in a row in which values of no declared category may be accidents; one more is an alarm."""
MOST_PROFILES = 20
"""Profiles that a reference takes in; the world may drift slowly, but not along with it."""
MOST_ALARMS = 10
"""Alarms of one profile, the furthest moved features: when all of sixty move, ten say so."""
TESTS = 7
"""Tests a feature: psi, jensen_shannon, zeros, missing, range below and above, unseen categories."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One test of one feature that passed its threshold."""

    detector: str
    subject: str
    statistic: float
    threshold: float
    reference: Mapping[str, Any]
    current: Mapping[str, Any]
    detail: str


class Codes:
    """The values that a feature may have, and what of a profile is surely none of them.

    Values that share a bucket with a code (8 and 9 do) are told from it only where they are a profile's smallest
    or largest.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self._values = frozenset(values)
        self._buckets = np.unique([bucket(value) for value in values])

    def others(self, column: ProfileColumn) -> int:
        """How many values lie in buckets without a code."""
        zeros = 0 if 0.0 in self._values else column.zeros
        return int(column.counts[~np.isin(column.buckets, self._buckets)].sum()) + zeros

    def strays(self, column: ProfileColumn) -> list[float]:
        """The smallest and the largest value, where they are no codes."""
        if not len(column.buckets) and not column.zeros:
            return []
        return [value for value in (column.minimum, column.maximum) if value not in self._values]


@dataclass(slots=True)
class Past:
    """What a feature looked like in one unit: counts by bucket (0 holds the zeros), missing values apart.

    `strange` counts the newest profiles, one after another, that hold a value of no declared category; `told` says
    that an alarm of the feature was raised meanwhile.
    """

    counts: dict[int, int] = field(default_factory=dict)
    missing: int = 0
    rows: int = 0
    spread: float = 0.0
    degrees: float = 0.0
    strange: int = 0
    told: bool = False
    total: float = 0.0
    squares: float = 0.0

    def follow(self, codes: Codes, column: ProfileColumn) -> None:
        """Count how long values of no declared category have come."""
        self.strange = self.strange + 1 if codes.others(column) or codes.strays(column) else 0
        self.told = self.told and self.strange > 0

    def anew(self, alarmed: bool) -> "Past":
        """The past behind an alarm, of this feature if `alarmed`."""
        return Past(strange=self.strange, told=self.told or (alarmed and self.strange > 0))

    def add(self, column: ProfileColumn, rows: int) -> None:
        """Take a profile in; how far it lies from those before says how noisy profiles of this feature are."""
        if self.rows:
            _, before, now = self.aligned(column)
            cuts = quantile_groups(before, GROUPS)
            before, now = _grouped(before, cuts), _grouped(now, cuts)
            some = (before + now) > 0
            if some.sum() > 1:
                self.spread += homogeneity(before, now)
                self.degrees += int(some.sum()) - 1
        for place, count in zip(column.buckets.tolist(), column.counts.tolist(), strict=True):
            self.counts[place] = self.counts.get(place, 0) + count
        if column.zeros:
            self.counts[0] = self.counts.get(0, 0) + column.zeros
        self.missing += column.missing
        self.rows += rows
        self.total += column.total
        self.squares += column.squares

    @property
    def inflation(self) -> float:
        """How much more profiles of this feature vary than independent rows would, at least 1."""
        return max(1.0, self.spread / self.degrees) if self.degrees else 1.0

    def aligned(self, column: ProfileColumn) -> tuple[list[int], Ints, Ints]:
        """The buckets of past and column, ascending, and the counts of each over them."""
        now = dict(zip(column.buckets.tolist(), column.counts.tolist(), strict=True))
        if column.zeros:
            now[0] = now.get(0, 0) + column.zeros
        places = sorted(self.counts.keys() | now.keys())
        return (
            places,
            np.array([self.counts.get(place, 0) for place in places], np.int64),
            np.array([now.get(place, 0) for place in places], np.int64),
        )


def _grouped(counts: Ints, cuts: Ints) -> Ints:
    if not len(counts):
        return counts
    return np.add.reduceat(counts, np.concatenate([[0], cuts]).astype(np.int64))


class Profiles:
    """Compares each profile with its unit's past, feature by feature; after an alarm that past begins anew.

    `rows_between`: rows without change in which all features together may raise one false alarm. A bin's counts
    are taken as independent draws, widened by how much the profiles of the past differed among themselves.
    `categories`: the values that a feature may have, by name; others are unseen, and told once for as long as each
    profile holds some.
    """

    def __init__(
        self,
        reference: int,
        rows_between: float,
        categories: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self._reference, self._rows_between = reference, rows_between
        self._groups: dict[str, int] = {}
        self._codes = {name: Codes(values) for name, values in (categories or {}).items()}
        self._units: dict[int, tuple[int, list[Past]]] = {}

    def step(self, row: ProfileRow) -> list[Moved]:
        """Fold one profile; the most telling test of each feature that moved, the furthest first."""
        count, past = self._units.get(row.unit) or (0, [Past() for _ in row.names])
        moved: list[Moved] = []
        for name, before, column in zip(row.names, past, row.columns, strict=True):
            if name in self._codes:
                before.follow(self._codes[name], column)
        ready = count >= LEAST_PROFILES and bool(past) and past[0].rows >= self._reference
        if ready:
            share = row.rows / self._rows_between / self._tests_of(row.names)
            for name, before, column in zip(row.names, past, row.columns, strict=True):
                found = self._tests(name, before, column, row.rows, share)
                # A value of no declared category is certain, however far its distribution seems to have moved.
                moved += sorted(found, key=lambda e: (e.detector != "unseen", -e.statistic / e.threshold))[:1]
        if moved:  # the profile itself may hold both worlds
            alarmed = {each.subject for each in moved}
            count, past = (
                0,
                [before.anew(name in alarmed) for name, before in zip(row.names, past, strict=True)],
            )
        elif not ready or count < MOST_PROFILES:
            for before, column in zip(past, row.columns, strict=True):
                before.add(column, row.rows)
            count += 1
        self._units[row.unit] = count, past
        return sorted(moved, key=lambda each: -each.statistic / each.threshold)[:MOST_ALARMS]

    def forget(self, unit: int) -> None:
        """Let what is usual in a unit begin anew."""
        self._units.pop(unit, None)

    def _tests_of(self, names: Sequence[str]) -> int:
        """How many tests share the budget of a look."""
        return TESTS * max(1, len(names))

    def _tests(
        self, name: str, past: Past, column: ProfileColumn, rows: int, probability: float
    ) -> list[Moved]:
        before, after, evidence = self._compared(name, past, column)
        limit = past.inflation * chance(len(before), int(before.sum()), int(after.sum()), probability)
        found: list[tuple[str, float, float, str]] = [
            ("psi", psi(before, after), limit, "its distribution moved"),
            ("jensen_shannon", jensen_shannon(before, after), limit / 8, "its distribution moved"),
        ]
        odd = past.inflation * float(chi2.isf(probability, 1))
        zeros = (past.counts.get(0, 0), column.zeros)
        for detector, (was, is_) in {"zeros": zeros, "missing": (past.missing, column.missing)}.items():
            ratio = homogeneity(np.array([was, past.rows - was]), np.array([is_, rows - is_]))
            text = f"{detector}: {was / max(1, past.rows):.2%} before, {is_ / max(1, rows):.2%} now"
            found.append((detector, ratio, odd, text))
        found += self._beyond(past, column, probability)
        if name in self._codes and not past.told:
            allowed = outside_limit(past.rows, rows, probability) * past.inflation
            found += self._unseen(self._codes[name], past, column, allowed)
        return [
            Moved(detector, name, statistic, threshold, evidence[0], evidence[1], f"{name}: {text}")
            for detector, statistic, threshold, text in found
            if statistic > threshold
        ]

    def _unseen(
        self, codes: Codes, past: Past, column: ProfileColumn, allowed: float
    ) -> list[tuple[str, float, float, str]]:
        """How many values have no declared category, and for how many profiles such have come."""
        others, strays = codes.others(column), codes.strays(column)
        such = f", such as {strays[-1]:g}," if strays else ""
        text = f"values of no declared category{such} came in each of the newest {past.strange} profiles"
        return [
            ("unseen", float(others), allowed, f"{others} values of no declared category"),
            ("unseen", float(past.strange), float(STRAYS), text),
        ]

    def _beyond(
        self, past: Past, column: ProfileColumn, probability: float
    ) -> list[tuple[str, float, float, str]]:
        """How many values lie below and above all that was seen."""
        if not past.counts:
            return []
        values = int(column.counts.sum()) + column.zeros
        allowed = outside_limit(sum(past.counts.values()), values, probability) * past.inflation
        places = np.append(column.buckets, 0) if column.zeros else column.buckets
        counts = np.append(column.counts, column.zeros) if column.zeros else column.counts
        low, high = min(past.counts), max(past.counts)
        return [
            (
                "range",
                float(count),
                allowed,
                f"{count} values {side} {bound:.6g}, where none was before",
            )
            for count, side, bound in (
                (int(counts[places < low].sum()), "below", floor(low)),
                (int(counts[places > high].sum()), "above", floor(high + 1)),
            )
        ]

    def _compared(
        self, name: str, past: Past, column: ProfileColumn
    ) -> tuple[Ints, Ints, tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Counts of past and column in bins of equal count of the past, and the same as evidence."""
        places, whole, now = past.aligned(column)
        cuts = quantile_groups(whole, self._groups.get(name, GROUPS))
        before, after = _grouped(whole, cuts), _grouped(now, cuts)
        edges = [floor(places[at]) for at in cuts.tolist()]
        return (
            before,
            after,
            (
                {"edges": edges, "counts": before.tolist(), "missing": past.missing, "rows": past.rows},
                {"edges": edges, "counts": after.tolist(), "missing": column.missing},
            ),
        )

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {
            str(unit): [
                count,
                [
                    {
                        "places": np.array(sorted(past.counts), np.int64),
                        "counts": np.array([past.counts[place] for place in sorted(past.counts)], np.int64),
                        "rest": [
                            past.missing,
                            past.rows,
                            past.spread,
                            past.degrees,
                            past.strange,
                            past.told,
                            past.total,
                            past.squares,
                        ],
                    }
                    for past in pasts
                ],
            ]
            for unit, (count, pasts) in self._units.items()
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._units = {
            int(unit): (count, [_past(each) for each in pasts]) for unit, (count, pasts) in state.items()
        }


def _past(state: dict[str, Any]) -> Past:
    counts = dict(zip(state["places"].tolist(), state["counts"].tolist(), strict=True))
    return Past(counts, *state["rest"])
