"""Counts that grow and shrink exactly as rows enter and leave a frame: tallies, and numbers of different codes."""

import math

from services.features.core.plan import LABELLED, LABELS, POSITIVES, PRESENT
from services.features.core.tables import VALUE, find, put, remove
from shared.codec.batch import Floats, Ints
from shared.kernels import kernel

# No label yet; also the code of a null.
NONE = -(2**63)


@kernel
def weight(rows: Ints, values: Floats, row: int, kind: int, column: int) -> int:
    """What one row adds to a tally."""
    if kind == PRESENT:
        return 0 if math.isnan(values[row, column]) else 1
    return of_label(rows[row, LABELLED], kind, column)


@kernel
def of_label(label: int, kind: int, positive: int) -> int:
    """What a label adds to a tally over labels."""
    if label == NONE:
        return 0
    if kind == LABELS:
        return 1
    if kind == POSITIVES:
        return 1 if label == positive else 0
    return label


@kernel
def tally(
    tallies: Ints,
    first: int,
    last: int,
    rows: Ints,
    values: Floats,
    own: Ints,
    begin: int,
    end: int,
    sign: int,
) -> None:
    """Let the rows begin..end-1 of the pool enter (sign 1) or leave (-1) the tallies first..last-1."""
    for t in range(first, last):
        total = 0
        for row in range(begin, end):
            total += weight(rows, values, row, tallies[t, 1], tallies[t, 2])
        own[tallies[t, 3]] += sign * total


@kernel
def count_codes(
    distincts: Ints,
    first: int,
    last: int,
    seed: int,
    rows: Ints,
    codes: Ints,
    entity: int,
    own: Ints,
    begin: int,
    end: int,
    sign: int,
) -> int:
    """Let the rows begin..end-1 enter or leave the distinct counts first..last-1; by how much the table grew."""
    grew = 0
    for d in range(first, last):
        key = entity * distincts.shape[0] + d + 1
        for row in range(begin, end):
            code = rows[row, distincts[d, 1]]
            if code == NONE:
                continue
            at = find(codes, seed, key, code, 0)
            change = 0
            if at < 0:
                put(codes, ~at, key, code, 0, 1)
                change = 1
            else:
                codes[at, VALUE] += sign
                if codes[at, VALUE] == 0:
                    remove(codes, seed, at)
                    change = -1
            own[distincts[d, 2]] += change
            grew += change
    return grew
