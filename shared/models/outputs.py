"""What a model may answer: P(positive class) for two classes, one probability a class for more."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# How far from 1 the sum of a row's probabilities may be.
SUM_TOLERANCE = 1e-4


def output_shape(rows: int, classes: int) -> tuple[int, ...]:
    """(rows,) for two classes, (rows, classes) for more."""
    return (rows,) if classes == 2 else (rows, classes)


def improper(values: Floats) -> Mask:
    """Which rows of float64[n] or float64[n, classes] are no probabilities: NaN, outside [0, 1], other sum.

    >>> improper(np.array([0.5, 1.5, np.nan])).tolist()
    [False, True, True]
    >>> improper(np.array([[0.5, 0.2, 0.3], [0.5, 0.5, 0.5]])).tolist()
    [False, True]
    """
    proper = (values >= 0.0) & (values <= 1.0)
    if values.ndim == 1:
        return np.asarray(~proper)
    return np.asarray(~(proper.all(axis=1) & (np.abs(values.sum(axis=1) - 1.0) <= SUM_TOLERANCE)))
