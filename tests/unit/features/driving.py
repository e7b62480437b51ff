"""Drive `EntityWindows` with the rows of the naive fold."""

from collections.abc import Sequence

import numpy as np

from services.features.core.windows import EntityWindows
from shared.codec.batch import Column, Floats, Strings
from tests.unit.features.naive import Row


def step(windows: EntityWindows, rows: Sequence[Row], fields: int, codes: int) -> Floats:
    """One call of `step` over these rows."""
    values = np.full((len(rows), fields), np.nan)
    for at, row in enumerate(rows):
        values[at, : len(row.values)] = [np.nan if v is None else v for v in row.values]
    return windows.step(
        np.array([row.label is not None for row in rows], np.uint8),
        Strings.of([row.entity for row in rows]),
        np.array([row.time for row in rows], np.int64),
        Strings.of([row.ident for row in rows]),
        values,
        [_texts([row.codes[at] if row.codes else None for row in rows]) for at in range(codes)],
        np.array([np.nan if row.label is None else row.label for row in rows], np.float64),
    )


def _texts(texts: Sequence[bytes | None]) -> Column:
    valid = np.array([text is not None for text in texts], np.bool_)
    return Column(Strings.of([text or b"" for text in texts]), valid)
