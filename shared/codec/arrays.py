"""A batch as named plain arrays, to be saved and to be hashed."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Batch, Column, Strings

Arrays = dict[str, npt.NDArray[Any]]


def batch_to_arrays(batch: Batch, prefix: str) -> Arrays:
    """One array a fixed-width column, two a column of texts, one more where it has nulls."""
    arrays: Arrays = {f"{prefix}rows": np.array([batch.rows], np.int64)}
    for name, column in batch.columns.items():
        place = f"{prefix}{name}"
        if isinstance(column.values, Strings):
            packed = column.values.compact()
            arrays[f"{place}|data"], arrays[f"{place}|lengths"] = packed.data, packed.lengths
        else:
            arrays[f"{place}|values"] = column.values
        if column.valid is not None:
            arrays[f"{place}|valid"] = column.valid
    return arrays


def arrays_to_batch(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Batch | None:
    """The batch that `batch_to_arrays` took apart; None where there is none under `prefix`."""
    if f"{prefix}rows" not in arrays:
        return None
    columns = {}
    for full in arrays:
        if not full.startswith(prefix):
            continue
        name, _, part = full.removeprefix(prefix).rpartition("|")
        valid = arrays.get(f"{prefix}{name}|valid")
        if part == "values":
            columns[name] = Column(arrays[full], valid)
        elif part == "lengths":
            columns[name] = Column(Strings.packed(arrays[f"{prefix}{name}|data"], arrays[full]), valid)
    return Batch(columns, int(arrays[f"{prefix}rows"][0]))


def digest_of(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in the order of the names."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        whole.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()
