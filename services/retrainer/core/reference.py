"""How features were distributed in training, in the form of profiles.v1, so that drift can tell what is usual."""

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

Floats = npt.NDArray[np.float64]
_LOW_BITS = 50
_SIZE = np.int64(0x7FFF_FFFF_FFFF_FFFF)


def reference_column(values: Floats) -> dict[str, JsonValue]:
    """One feature's histogram: a bucket is a value's exponent and two bits of mantissa, negative below zero.

    >>> reference_column(np.array([1.0, 1.1, -1.0, 0.0, np.nan]))["counts"]
    [1, 2]
    """
    good = np.ascontiguousarray(values[np.isfinite(values)])
    size = (good.view(np.int64) & _SIZE) >> _LOW_BITS
    codes = np.where(good < 0, -size, size)
    buckets, counts = np.unique(codes[codes != 0], return_counts=True)
    return {
        "buckets": buckets.tolist(),
        "counts": counts.tolist(),
        "zeros": int((codes == 0).sum()),
        "missing": len(values) - len(good),
        "minimum": float(good.min()) if len(good) else 0.0,
        "maximum": float(good.max()) if len(good) else 0.0,
    }


def reference_of(names: tuple[str, ...], matrix: Floats) -> dict[str, JsonValue]:
    """All features' histograms over the rows of a training."""
    columns: list[JsonValue] = [reference_column(column) for column in matrix.T]
    return {"rows": len(matrix), "names": list(names), "columns": columns}
