"""Monoid columns of an entity's rows: running aggregates on both sides of a flip.

The columns of a row in [FRONT, FLIP) hold the aggregate from that row up to FLIP; those of a row in [FLIP, HI)
hold the aggregate from FLIP up to that row. So a window that spans FLIP is one join of two rows. When LO passes
FLIP, FLIP moves to HI and the rows before it are aggregated once more, backwards: at most twice a row in all.
Positions count from the entity's first row in the pool, `base`.
"""

from services.features.core.monoids import Triple, identity, joined, load, merged, scanned, store
from services.features.core.plan import FLIP, FRONT, HI, LO
from shared.codec.batch import Floats, Ints
from shared.kernels import kernel


@kernel
def forward(
    monoids: Ints, first: int, last: int, values: Floats, base: int, flip: int, begin: int, end: int
) -> None:
    """Fill the columns of the monoids first..last-1 in rows begin..end-1, at or behind the flip."""
    for m in range(first, last):
        op, value, column = monoids[m, 1], monoids[m, 2], monoids[m, 3]
        if begin > flip:
            a, b, c = load(values, base + begin - 1, column, op)
        else:
            a, b, c = identity(op)
        for at in range(base + begin, base + end):
            a, b, c = joined(op, a, b, c, values[at, value], True)
            store(values, at, column, op, a, b, c)


@kernel
def backward(
    monoids: Ints, first: int, last: int, values: Floats, base: int, flip: int, begin: int, end: int
) -> None:
    """Fill the columns of the monoids first..last-1 in rows end-1 down to begin, before the flip."""
    for m in range(first, last):
        op, value, column = monoids[m, 1], monoids[m, 2], monoids[m, 3]
        if end < flip:
            a, b, c = load(values, base + end, column, op)
        else:
            a, b, c = identity(op)
        for at in range(base + end - 1, base + begin - 1, -1):
            a, b, c = joined(op, a, b, c, values[at, value], False)
            store(values, at, column, op, a, b, c)


@kernel
def spanned(monoids: Ints, monoid: int, values: Floats, base: int, own: Ints, place: int) -> Triple:
    """A monoid over the window of the frame whose state stands at `place` in its entity's row."""
    lo, hi, flip = own[place + LO], own[place + HI], own[place + FLIP]
    op, column = monoids[monoid, 1], monoids[monoid, 3]
    if lo < own[place + FRONT] or lo > flip or hi < flip:
        return scanned(values, base + lo, base + hi, monoids[monoid, 2], op, 1.0)
    if lo == flip:
        return load(values, base + hi - 1, column, op) if hi > flip else identity(op)
    older = load(values, base + lo, column, op)
    return merged(op, older, load(values, base + hi - 1, column, op)) if hi > flip else older
