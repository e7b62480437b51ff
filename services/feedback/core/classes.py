"""Labels as indices among the declared classes, and class probabilities as a matrix."""

from collections.abc import Mapping

import numpy as np

from shared.codec.batch import Column, Floats, Ints, Strings
from shared.codec.interner import Interner
from shared.contracts.pipeline import Label
from shared.errors import Fatal


class ClassReader:
    """Reads a pipeline's label column: the index of each value among `classes`, -1 where it is none of them."""

    def __init__(self, label: Label) -> None:
        self._texts = Interner()
        avro = label.fields[label.field].avro
        classes = label.classes
        if isinstance(avro, Mapping) and avro.get("type") == "enum":
            symbols: list[str] = list(avro["symbols"])
            values = [symbols.index(str(each)) for each in classes]
        elif isinstance(classes[0], str):
            self._texts.intern(Strings.of([str(each).encode() for each in classes]))
            values = list(range(len(classes)))
        else:
            values = [int(each) for each in classes]
        found = np.array(values, np.int64)
        self._order = np.argsort(found, kind="stable")
        self._values = found[self._order]

    def read(self, column: Column) -> Ints:
        """int64, one a row; -1 for null and for what is not declared."""
        if isinstance(column.values, Strings):
            return np.where(column.mask(), self._texts.lookup(column.values), -1)
        values = column.array.astype(np.int64)
        at = np.minimum(np.searchsorted(self._values, values), self._values.size - 1)
        known = (self._values[at] == values) & column.mask()
        return np.where(known, self._order[at], -1)


NO_DOUBLES = b"\x00"
"""An empty array of doubles, as Avro writes it."""


def read_doubles(column: Column, width: int) -> Floats:
    """An opaque column of arrays of `width` doubles as float64[n, width]; NaN where the array is empty.

    Millrace writes such an array as one block.

    Raises:
        Fatal: an array has another length: the prediction is of another pipeline.
    """
    texts = column.strings
    out = np.full((len(texts), width), np.nan)
    whole = np.flatnonzero(texts.lengths == 8 * width + 2)
    data = texts.take(whole).compact().data.reshape(whole.size, 8 * width + 2)
    empty = texts.lengths == len(NO_DOUBLES)
    if whole.size + np.count_nonzero(empty) < len(texts) or (data[:, 0] != 2 * width).any():
        raise Fatal(f"a prediction does not have {width} probabilities; who else writes predictions?")
    out[whole] = np.ascontiguousarray(data[:, 1:-1]).view("<f8")
    return out


def write_doubles(matrix: Floats) -> Strings:
    """The reverse of `read_doubles`; rows of NaN become empty arrays."""
    rows, width = matrix.shape
    if not width:
        return Strings.repeated(NO_DOUBLES, rows)
    data = np.zeros((rows, 8 * width + 2), np.uint8)
    data[:, 0] = 2 * width
    data[:, 1:-1] = np.ascontiguousarray(matrix, "<f8").view(np.uint8)
    lengths = np.full(rows, data.shape[1], np.int64)
    return Strings.choose(
        np.isnan(matrix[:, 0]),
        Strings.repeated(NO_DOUBLES, rows),
        Strings.packed(data.reshape(-1), lengths),
    )
