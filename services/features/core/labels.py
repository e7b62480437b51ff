"""Labels as the whole numbers that windows take."""

import numpy as np

from shared.codec.batch import Column, Floats, Mask, Strings
from shared.codec.interner import Interner
from shared.contracts.pipeline import Label
from shared.errors import Fatal


class LabelReader:
    """Reads a pipeline's label column: numbers stay themselves, texts become their place in `classes`.

    `positive` is the number of the positive class, whose share `rate` gives.
    """

    def __init__(self, label: Label) -> None:
        self._texts = Interner()
        positive = label.positive
        if isinstance(positive, str):
            self._texts.intern(Strings.of([str(each).encode() for each in label.classes]))
            self.positive = label.classes.index(positive)
            self._known = np.arange(len(label.classes), dtype=np.float64)
        else:
            self.positive = int(positive)
            self._known = np.array([float(each) for each in label.classes], np.float64)
        self._field = label.field

    def read(self, column: Column, rows: Mask) -> Floats:
        """A number for each of `rows` (a mask), NaN elsewhere and where the label is null.

        Raises:
            Fatal: a label is none of the classes: ingest lets none of these in.
        """
        if isinstance(column.values, Strings):
            values = self._texts.lookup(column.values).astype(np.float64)
        else:
            values = column.array.astype(np.float64)
        said = rows & column.mask()
        wrong = said & ~np.isin(values, self._known)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise Fatal(f"row {at} has a {self._field} that is not one of the classes: who wrote this topic?")
        return np.where(said, values, np.nan)
