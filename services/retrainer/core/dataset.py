"""Feature vectors and outcomes, joined by event id into rows in time order.

Ids are compared by their XXH64: two ids in ten million share one with a chance of about 1 in 400,000.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Batch, Column, Floats, Ints, Mask, Strings
from shared.codec.hashing import xxh64_strings
from shared.contracts.pipeline import Label

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Rows of features.v1: id hashes uint64[n], places int64[n, 3] to sort by, features float64[n, k]."""

    ids: Hashes
    places: Ints
    event_times: Ints
    matrix: Floats

    @staticmethod
    def of(batch: Batch, names: Sequence[str]) -> "Vectors":
        """From a batch in the features layout, in memory of its own."""
        places = ("order_time", "source_partition", "source_offset")
        return Vectors(
            xxh64_strings(batch["event_id"].strings),
            np.column_stack([batch[name].array.astype(np.int64) for name in places]),
            batch["event_time"].array.copy(),
            np.column_stack([batch[f"features.{name}"].array for name in names]),
        )

    @staticmethod
    def concat(parts: Sequence["Vectors"]) -> "Vectors":
        """All rows of all parts; at least one."""
        return Vectors(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.event_times for part in parts]),
            np.concatenate([part.matrix for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Labels that have come: id hashes, whether positive, and the newest order time seen beside them."""

    ids: Hashes
    positive: Mask
    order_time: int = 0

    @staticmethod
    def of(batch: Batch, label: Label, symbols: Sequence[str] = ()) -> "Outcomes":
        """From a batch in the accepted layout; `symbols` are those of the label's field if it is an enum."""
        times = batch["order_time"].array
        newest = int(times.max()) if len(times) else 0
        rows = batch.take(batch["label"].array.astype(np.bool_))
        ids = xxh64_strings(rows[f"label.{label.id}"].strings)
        return Outcomes(ids, positives(rows[f"label.{label.field}"], label, symbols), newest)

    @staticmethod
    def concat(parts: Sequence["Outcomes"]) -> "Outcomes":
        """All labels of all parts, in order; at least one part."""
        return Outcomes(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.positive for part in parts]),
            max(part.order_time for part in parts),
        )


def positives(column: Column, label: Label, symbols: Sequence[str] = ()) -> Mask:
    """Which rows hold the label's positive class."""
    wanted = label.positive
    if isinstance(column.values, Strings):
        target = xxh64_strings(Strings.of([str(wanted).encode()]))[0]
        return np.asarray(xxh64_strings(column.strings) == target, np.bool_)
    if symbols:
        return np.asarray(column.array == list(symbols).index(str(wanted)), np.bool_)
    return np.asarray(column.array == wanted, np.bool_)


def join(vectors: Vectors, outcomes: Outcomes, label: Label) -> tuple[Floats, Mask]:
    """Vectors whose outcome is known, in order time, with it; the first label of an id counts.

    A vector without label is left out, unless the declaration gives a missing one a class and its horizon
    has passed.
    """
    ids, first = np.unique(outcomes.ids, return_index=True)
    at = np.minimum(np.searchsorted(ids, vectors.ids), max(len(ids) - 1, 0))
    known = ids[at] == vectors.ids if len(ids) else np.zeros(len(vectors.ids), np.bool_)
    truth = np.zeros(len(vectors.ids), np.bool_)
    if len(ids):
        truth[known] = outcomes.positive[first][at[known]]
    if label.missing is not None:
        overdue = ~known & (vectors.event_times <= outcomes.order_time - label.horizon_ms)
        truth[overdue] = label.missing == label.positive
        known = known | overdue
    rows = np.flatnonzero(known)
    order = np.lexsort(vectors.places[rows].T[::-1])
    return np.ascontiguousarray(vectors.matrix[rows[order]]), truth[rows[order]]
