"""One number for all feature vectors of a run, to compare runs by."""

import hashlib

import numpy as np

from shared.codec.batch import Floats, Strings
from shared.codec.hashing import xxh64_rows


def canonical(matrix: Floats) -> Floats:
    """The vectors with one zero and one NaN, C-contiguous: equal values have equal bytes."""
    made = np.ascontiguousarray(matrix, np.float64) + 0.0
    made[np.isnan(made)] = np.nan
    return made


def vectors_digest(event_ids: Strings, matrix: Floats) -> str:
    """SHA-256 (hex) over (event id, vector) sorted by event id: the order in which they came does not count.

    `matrix` is float64 [events, features]. An id that stands twice counts twice.

    >>> ids, vectors = Strings.of([b"b", b"a"]), np.array([[0.0], [1.5]])
    >>> vectors_digest(ids, vectors) == vectors_digest(ids.take(np.array([1, 0])), vectors[::-1])
    True
    """
    vectors = canonical(matrix)
    names = event_ids.to_list()
    hashes = xxh64_rows(vectors).tolist()
    order = sorted(range(len(names)), key=lambda row: (names[row], hashes[row]))
    lengths = event_ids.lengths[order]
    sha = hashlib.sha256(np.array(vectors.shape, "<i8").tobytes())
    sha.update(np.ascontiguousarray(lengths, "<i8").tobytes())
    sha.update(b"".join([names[row] for row in order]))
    sha.update(vectors[order].astype("<f8", copy=False).tobytes())
    return sha.hexdigest()
