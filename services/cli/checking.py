"""What must hold of a finished run, checked on what the topics hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from shared.codec.batch import Batch, Strings

Floats = npt.NDArray[np.float64]
# Published values are rounded to six decimals.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Once:
    """Whether every expected id came out once: how many, which were lost, which came twice or uncalled for."""

    expected: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    strange: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Exactly once."""
        return not (self.lost or self.doubled or self.strange)

    def __str__(self) -> str:
        if self.holds:
            return f"exactly once: all {self.expected}"
        named = ", ".join((*self.lost[:3], *self.doubled[:3], *self.strange[:3]))
        return (
            f"NOT exactly once: of {self.expected} {len(self.lost)} lost, {len(self.doubled)} doubled, "
            f"{len(self.strange)} nobody sent; such as {named}"
        )


def texts(column: Strings) -> list[str]:
    """A column's values as Python texts."""
    return [value.decode() for value in column.to_list()]


def exactly_once(expected: Sequence[str], found: Sequence[str]) -> Once:
    """Compare the ids that must be answered with those that were.

    >>> print(exactly_once(["a", "b"], ["b", "b"]))
    NOT exactly once: of 2 1 lost, 1 doubled, 0 nobody sent; such as a, b
    """
    wanted = set(expected)
    seen: set[str] = set()
    doubled = []
    for each in found:
        if each in seen:
            doubled.append(each)
        seen.add(each)
    lost = sorted(wanted - seen)
    return Once(len(wanted), tuple(lost), tuple(doubled), tuple(sorted(seen - wanted)))


def matrix_of(batch: Batch, names: Sequence[str]) -> Floats:
    """The feature vectors of rows in the features layout, float64[rows, len(names)]."""
    return np.stack([batch[f"features.{name}"].array for name in names], axis=1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Computed features against published ones, over the rows and columns that the truth has."""

    rows: int
    columns: int
    mismatches: int
    examples: tuple[str, ...]


def compare_with_truth(
    ids: Sequence[str], names: Sequence[str], matrix: Floats, truth: pl.DataFrame
) -> Comparison:
    """Every truth row against the computed one of the same TRANSACTION_ID.

    Columns of whole numbers must be equal, others within `TOLERANCE`. A row that was not computed mismatches
    in every column.
    """
    key = truth.columns[0]
    columns = [name for name in truth.columns[1:] if name in names]
    missing = [name for name in truth.columns[1:] if name not in names]
    place = {each: row for row, each in enumerate(ids)}
    wanted = truth[key].cast(pl.String).to_list()
    rows = np.array([place.get(each, -1) for each in wanted], np.int64)
    examples = [f"column {name}: not among the computed features" for name in missing]
    mismatches = len(missing) * len(wanted)
    for name in columns:
        expected = truth[name].cast(pl.Float64).to_numpy()
        tolerance = 0.0 if truth[name].dtype.is_integer() else TOLERANCE + 1e-12
        got = np.where(rows >= 0, matrix[rows, names.index(name)], np.nan)
        wrong = np.flatnonzero(~(np.abs(got - expected) <= tolerance))
        mismatches += wrong.size
        examples += [
            f"{key} {wanted[i]} {name}: computed {got[i]!r}, truth {expected[i]!r}" for i in wrong[:3]
        ]
    return Comparison(len(wanted), len(columns), mismatches, tuple(examples[:20]))
