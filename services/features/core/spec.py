"""What a windowed feature is: an aggregate over a field in a window of an entity's events."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

LABEL = -2


class Aggregate(StrEnum):
    """The aggregates by their names in a declaration."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    STD = "std"
    LAST = "last"
    DISTINCT = "distinct"
    SINCE_LAST = "since_last"
    RATE = "rate"


_FIELDLESS = (Aggregate.COUNT, Aggregate.SINCE_LAST)
_OVER_LABEL = (Aggregate.COUNT, Aggregate.SUM, Aggregate.MEAN, Aggregate.RATE)


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """One windowed feature: `aggregate` over the events with time in (t - delay - window, t - delay].

    `field` is a column of `values`, or of the distinct columns for `distinct`, or LABEL, or None for `count`
    and `since_last`; durations are in milliseconds; `default` stands for a window with nothing to aggregate.
    """

    aggregate: Aggregate
    field: int | None
    window_ms: int
    delay_ms: int = 0
    default: float = 0.0


def check_specs(specs: Sequence[WindowSpec], fields: int, distinct: int) -> None:
    """Raise ValueError at the first spec that means nothing for so many value and distinct columns."""
    for at, spec in enumerate(specs):
        if spec.window_ms <= 0 or spec.delay_ms < 0 or spec.window_ms + spec.delay_ms >= 2**59:
            raise ValueError(f"spec {at}: window must be positive, delay not negative, both below 2**59 ms")
        columns = distinct if spec.aggregate is Aggregate.DISTINCT else fields
        if not _field_fits(spec, columns):
            raise ValueError(f"spec {at}: {spec.aggregate} cannot be taken over field {spec.field}")


def _field_fits(spec: WindowSpec, columns: int) -> bool:
    if spec.field is None:
        return spec.aggregate in _FIELDLESS
    if spec.field == LABEL:
        return spec.aggregate in _OVER_LABEL
    return spec.aggregate not in (*_FIELDLESS, Aggregate.RATE) and 0 <= spec.field < columns
