"""Reading the features of one event from where its entity's frames stand."""

import math

from services.features.core.monoids import Triple, scaled_deviation, scaled_total
from services.features.core.plan import (
    FIRST_FRAME,
    FRAME,
    HI,
    LO,
    OUT_COUNT,
    OUT_PLAIN,
    OUT_RATIO,
    OUT_SINCE,
    OUT_STD,
    OUT_SUM,
    START,
    TIME,
    Plan,
)
from services.features.core.pool import Pool
from services.features.core.spans import spanned
from shared.codec.batch import Floats, Ints
from shared.kernels import kernel


@kernel
def _since_last(rows: Ints, row: int, lo: int, hi: int) -> float:
    """Seconds back to the newest other row of lo..hi-1, NaN when there is none."""
    last = hi - 2 if hi - 1 == row else hi - 1
    return (rows[row, TIME] - rows[last, TIME]) / 1000.0 if last >= lo else math.nan


@kernel
def _of_values(kind: int, count: int, triple: Triple, values: Floats, lo: int, hi: int, column: int) -> float:
    """The reading of a monoid over rows lo..hi-1 with `count` values; NaN when nothing was aggregated."""
    a, b, c = triple
    if kind == OUT_PLAIN:
        return a
    if kind == OUT_STD:
        if a == 0.0:
            return math.nan
        deviation = math.sqrt(c / a) if c >= 0.0 else math.nan
        return deviation if math.isfinite(deviation) else scaled_deviation(values, lo, hi, column)
    if count == 0:
        return math.nan
    parts = 1.0 if kind == OUT_SUM else float(count)
    total = (a + b) / parts
    return total if math.isfinite(total) else scaled_total(values, lo, hi, column, parts)


@kernel
def _of_counts(kind: int, own: Ints, a: int, b: int, size: int) -> float:
    """The reading of counts in a window of `size` rows; NaN when there is nothing to count."""
    if kind == OUT_COUNT:
        return float(size) if size > 0 else math.nan
    if kind == OUT_RATIO:
        parts = size if b < 0 else own[b]
        return own[a] / parts if parts > 0 else math.nan
    return float(own[a]) if own[b] > 0 else math.nan


@kernel
def emit(
    outputs: Ints,
    monoids: Ints,
    defaults: Floats,
    rows: Ints,
    values: Floats,
    own: Ints,
    row: int,
    out: Floats,
) -> None:
    """Write the features of one event from where the frames stand."""
    base = own[START]
    for output in range(outputs.shape[0]):
        kind, a, b = outputs[output, 0], outputs[output, 2], outputs[output, 3]
        place = FIRST_FRAME + FRAME * outputs[output, 1]
        lo, hi = own[place + LO], own[place + HI]
        if kind <= OUT_RATIO:
            result = _of_counts(kind, own, a, b, hi - lo)
        elif kind == OUT_SINCE:
            result = _since_last(rows, row, base + lo, base + hi)
        else:
            triple = spanned(monoids, a, values, base, own, place)
            count = own[b] if b > 0 else 0
            result = _of_values(kind, count, triple, values, base + lo, base + hi, monoids[a, 2])
        out[output] = defaults[output] if math.isnan(result) else result


@kernel
def emit_all(plan: Plan, pool: Pool, entity: int, row: int, out: Floats) -> None:
    """`emit` for an event that is not the usual one."""
    own = pool.entities[entity]
    emit(plan.outputs, plan.monoids, plan.defaults, pool.rows, pool.values, own, row, out)
